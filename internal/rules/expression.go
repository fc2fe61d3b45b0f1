package rules

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/ext"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

const (
	// costLimit bounds an evaluation, in CEL's units: about a tenth of a second.
	costLimit = 1_000_000

	// What the largest group holds, for the estimate of what an expression could cost. The bounds are those of the CRD;
	// labels and annotations are bounded by the API server.
	maxText        = 131_072
	maxID          = 1024
	maxName        = 63
	maxLabels      = 512
	maxLabelKey    = 317
	maxLabelValue  = 63
	maxAnnotations = 512
	maxAnnotation  = 262_144
)

// Group is the variable group of an expression. A nil pointer reads as the zero value, and has() tells the difference.
type Group struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`

	ServerName        string  `json:"serverName"`
	GroupID           string  `json:"groupID"`
	GroupName         *string `json:"groupName"`
	Notification      *string `json:"notification"`
	Introduction      *string `json:"introduction"`
	FaceURL           *string `json:"faceURL"`
	Ex                *string `json:"ex"`
	NeedVerification  *int32  `json:"needVerification"`
	LookMemberInfo    *int32  `json:"lookMemberInfo"`
	ApplyMemberFriend *int32  `json:"applyMemberFriend"`
	OwnerUserID       *string `json:"ownerUserID"`
	CreatorUserID     *string `json:"creatorUserID"`
	GroupType         *int32  `json:"groupType"`
	GroupStatus       *int32  `json:"groupStatus"`
	CreateTime        *int64  `json:"createTime"`
}

// variable returns the group as expressions see it.
func variable(group *openimv1.GroupInfo) *Group {
	spec := &group.Spec
	return &Group{
		Name: group.Name, Labels: group.Labels, Annotations: group.Annotations,
		ServerName: spec.ServerName, GroupID: spec.GroupID, GroupName: spec.GroupName, Notification: spec.Notification,
		Introduction: spec.Introduction, FaceURL: spec.FaceURL, Ex: spec.Ex, NeedVerification: spec.NeedVerification,
		LookMemberInfo: spec.LookMemberInfo, ApplyMemberFriend: spec.ApplyMemberFriend, OwnerUserID: spec.OwnerUserID,
		CreatorUserID: spec.CreatorUserID, GroupType: spec.GroupType, GroupStatus: spec.GroupStatus, CreateTime: spec.CreateTime,
	}
}

// newEnvironment returns what expressions are written in: standard CEL, and the string functions.
func newEnvironment() (*cel.Env, error) {
	return cel.NewEnv(
		ext.NativeTypes(reflect.TypeFor[Group](), ext.ParseStructTag("json")),
		cel.Variable("group", cel.ObjectType("rules.Group")),
		ext.Strings(ext.StringsVersion(5)),
		// The cost of the checks themselves has to be bounded as well.
		cel.ParserRecursionLimit(50),
		cel.ParserExpressionSizeLimit(4096),
	)
}

// expression is a compiled CEL expression.
type expression struct {
	// name is for messages: `matchConditions "vip"`.
	name    string
	program cel.Program
}

// compile checks and compiles an expression. The error is for the user, and quotes nothing but the expression.
func compile(env *cel.Env, name, source string, want *cel.Type) (*expression, error) {
	ast, issues := env.Compile(source)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("%s: %s", name, firstIssue(issues))
	}
	if got := ast.OutputType(); !got.IsExactType(want) {
		return nil, fmt.Errorf("%s: is of type %s and must be of type %s", name, got, want)
	}
	if callsFormat(ast) {
		// CEL charges for the pattern alone, so that a short expression could build gigabytes.
		return nil, fmt.Errorf("%s: format is not available; join texts with +", name)
	}
	cost, err := env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, fmt.Errorf("%s: its cost cannot be estimated", name)
	}
	if cost.Max > costLimit {
		return nil, fmt.Errorf("%s: could cost %d units with the largest group, and %d are allowed; do less with the long texts", name, cost.Max, costLimit)
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(costLimit))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &expression{name: name, program: program}, nil
}

// callsFormat reports whether the expression calls the strings extension's format.
func callsFormat(ast *cel.Ast) (calls bool) {
	celast.PreOrderVisit(ast.NativeRep().Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		calls = calls || (e.Kind() == celast.CallKind && e.AsCall().FunctionName() == "format")
	}))
	return calls
}

// firstIssue returns the first complaint in one line, and where it is.
func firstIssue(issues *cel.Issues) string {
	all := issues.Errors()
	if len(all) == 0 {
		return "cannot be understood"
	}
	return fmt.Sprintf("%s (line %d, column %d)", strings.Join(strings.Fields(all[0].Message), " "),
		all[0].Location.Line(), all[0].Location.Column()+1)
}

// errEvaluation is all that is told of why an evaluation failed: CEL's message may quote the group.
var errEvaluation = errors.New("cannot be evaluated for this group: guard against missing keys with has() or in, and convert only what is a number")

// evaluate returns the expression's value for the group.
func evaluate[T any](e *expression, group *Group) (T, error) {
	var zero T
	value, _, err := e.program.Eval(map[string]any{"group": group})
	if err != nil {
		return zero, fmt.Errorf("%s %w", e.name, errEvaluation)
	}
	result, ok := value.Value().(T)
	if !ok {
		return zero, fmt.Errorf("%s %w", e.name, errEvaluation)
	}
	return result, nil
}

// sizes estimates the sizes of what a group holds.
type sizes struct{}

var _ checker.CostEstimator = sizes{}

// EstimateSize implements checker.CostEstimator.
func (sizes) EstimateSize(element checker.AstNode) *checker.SizeEstimate {
	path := element.Path()
	if len(path) < 2 || path[0] != "group" {
		return nil
	}
	most := uint64(maxText)
	switch member := path[1]; {
	case member == "labels" && len(path) == 2:
		most = maxLabels
	case member == "labels" && path[2] == "@keys":
		most = maxLabelKey
	case member == "labels":
		most = maxLabelValue
	case member == "annotations" && len(path) == 2:
		most = maxAnnotations
	case member == "annotations" && path[2] == "@keys":
		most = maxLabelKey
	case member == "annotations":
		most = maxAnnotation
	case member == "name", member == "serverName":
		most = maxName
	case member == "groupID", member == "ownerUserID", member == "creatorUserID":
		most = maxID
	}
	return &checker.SizeEstimate{Min: 0, Max: most}
}

// EstimateCallCost implements checker.CostEstimator: CEL's own estimates serve.
func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}
