package cli

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
)

// deadLetters runs the command and returns what it printed, with runs of spaces as one.
func deadLetters(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newDeadLettersCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.Execute()
	return regexp.MustCompile(` +`).ReplaceAllString(out.String(), " "), err
}

func TestDeadLetters(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir, journal.Options{MaxBytes: 1 << 20, Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	var sequences []uint64
	for i := range uint64(2) {
		entry, err := j.Append("chat", merge.Change{
			Stamp: stamp.Stamp{Rank: stamp.RankTold, HLC: stamp.HLC(i + 1)}, Command: "callbackAfterSetGroupInfoExCommand",
			Received: time.Unix(0, 0), Spec: openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "G002", GroupName: new("a secret name")},
		})
		if err != nil {
			t.Fatal(err)
		}
		sequences = append(sequences, entry.Sequence)
	}
	if err := j.Bury(sequences); err != nil {
		t.Fatal(err)
	}
	if _, err := deadLetters(t, "list", "--journal-dir", dir); err == nil || !strings.Contains(err.Error(), "stop that first") {
		t.Errorf("with the journal open elsewhere the error is %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	const header = "SEQUENCE RECEIVED NAMESPACE OPENIMSERVER GROUPINFO COMMAND FIELDS\n"
	const rest = " 1970-01-01T00:00:00Z chat demo g002-wsz5frbln4am3mf2nf66q7xfnn callbackAfterSetGroupInfoExCommand groupName\n"
	for _, step := range []struct {
		args []string
		want string
	}{
		{[]string{"list"}, header + "1" + rest + "2" + rest},
		{[]string{"replay", "2"}, "1 changes wait for the receiver's next start.\n"},
		{[]string{"list"}, header + "1" + rest},
		{[]string{"replay"}, "1 changes wait for the receiver's next start.\n"},
		{[]string{"list"}, "No dead letters.\n"},
	} {
		got, err := deadLetters(t, append(step.args, "--journal-dir", dir)...)
		if err != nil {
			t.Fatalf("%v: %v", step.args, err)
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%v: (-want +got)\n%s", step.args, diff)
		}
	}
}

func TestDeadLettersRefuses(t *testing.T) {
	for name, args := range map[string][]string{
		"no directory":               {"list"},
		"a directory without one":    {"list", "--journal-dir", filepath.Join(t.TempDir(), "none")},
		"what is no sequence":        {"replay", "--journal-dir", t.TempDir(), "first"},
		"a list with a stray number": {"list", "--journal-dir", t.TempDir(), "1"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := deadLetters(t, args...); err == nil {
				t.Errorf("no error, printed %q", got)
			}
		})
	}
}
