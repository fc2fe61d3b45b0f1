package verifier

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
)

// No test can see how long a comparison takes, so this one reads the source: what decides on a token goes through
// crypto/subtle, compares nothing else but its verdict, and ends no loop early.
func TestTokensAreComparedInConstantTime(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "verifier.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	decisions, comparisons := 0, 0
	for _, declaration := range file.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok || function.Name.Name != "Accepts" {
			continue
		}
		decisions++
		ast.Inspect(function.Body, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.BinaryExpr:
				_, number := node.Y.(*ast.BasicLit)
				if (node.Op == token.EQL || node.Op == token.NEQ) && !number {
					t.Errorf("%s is used on what is no verdict", node.Op)
				}
			case *ast.RangeStmt:
				ast.Inspect(node.Body, func(inner ast.Node) bool {
					switch inner.(type) {
					case *ast.ReturnStmt, *ast.BranchStmt:
						t.Error("a loop over tokens ends early")
					}
					return true
				})
			case *ast.CallExpr:
				called, ok := node.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				switch of, _ := called.X.(*ast.Ident); {
				case of == nil:
				case of.Name == "subtle" && called.Sel.Name == "ConstantTimeCompare":
					comparisons++
				case of.Name == "bytes", of.Name == "slices", of.Name == "strings", of.Name == "reflect":
					t.Errorf("%s.%s is not made for secrets", of.Name, called.Sel.Name)
				}
			}
			return true
		})
	}
	if decisions != 2 || comparisons != 1 {
		t.Errorf("%d functions decide and make %d comparisons in constant time; this test knows 2 and 1", decisions, comparisons)
	}
}
