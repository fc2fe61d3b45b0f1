package cli

import (
	"bytes"
	"errors"
	"os"
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

// deadLettersCommand runs the command and returns what it printed, with runs of spaces as one.
func deadLettersCommand(t *testing.T, args ...string) (string, error) {
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
	if _, err := deadLettersCommand(t, "list", "--journal-dir", dir); err == nil || !strings.Contains(err.Error(), "stop that first") {
		t.Errorf("with the journal open elsewhere the error is %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	next := "\nThe receiver's log says why they were put aside. When that is mended, let the receiver try them again with\n" +
		" groupinfo-operator dead-letters replay --journal-dir " + dir + " [SEQUENCE ...]\n"
	replayed := "1 changes wait for the receiver's next start with --ack=journal --journal-dir " + dir + ".\n" +
		"Those that the API server still refuses become dead letters again.\n"
	const header = "SEQUENCE RECEIVED NAMESPACE OPENIMSERVER GROUPINFO COMMAND FIELDS\n"
	const rest = " 1970-01-01T00:00:00Z chat demo g002-wsz5frbln4am3mf2nf66q7xfnn callbackAfterSetGroupInfoExCommand groupName\n"
	const json = `[
 {
 "sequence": 1,
 "received": "1970-01-01T00:00:00Z",
 "namespace": "chat",
 "openIMServer": "demo",
 "groupInfo": "g002-wsz5frbln4am3mf2nf66q7xfnn",
 "command": "callbackAfterSetGroupInfoExCommand",
 "fields": [
 "groupName"
 ]
 }
]
`
	for _, step := range []struct {
		args []string
		want string
	}{
		{[]string{"list"}, header + "1" + rest + "2" + rest + next},
		{[]string{"replay", "2"}, replayed},
		{[]string{"list"}, header + "1" + rest + next},
		{[]string{"list", "-o", "json"}, json},
		{[]string{"replay"}, replayed},
		{[]string{"list"}, "No dead letters.\n"},
		{[]string{"list", "-o", "json"}, "[]\n"},
		{[]string{"replay"}, "No dead letters that can be replayed.\n"},
	} {
		got, err := deadLettersCommand(t, append(step.args, "--journal-dir", dir)...)
		if err != nil {
			t.Fatalf("%v: %v", step.args, err)
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%v: (-want +got)\n%s", step.args, diff)
		}
	}
}

// A dead letter that cannot be read is shown, and is in nobody's way.
func TestUnreadableDeadLetters(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir, journal.Options{MaxBytes: 1 << 20, Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	// What another version might write: no group.
	entry, err := j.Append("chat", merge.Change{Stamp: stamp.Stamp{Rank: stamp.RankTold, HLC: 1}, Received: time.Unix(0, 0)})
	if err := errors.Join(err, j.Bury([]uint64{entry.Sequence}), j.Close()); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		args []string
		want string
	}{
		{[]string{"list"}, "SEQUENCE RECEIVED NAMESPACE OPENIMSERVER GROUPINFO COMMAND FIELDS\n1 (cannot be read) \n" +
			"\n1 cannot be read, by this version at least, and are kept: they are not replayed.\n"},
		{[]string{"list", "-o", "json"}, "[\n {\n \"sequence\": 1,\n \"unreadable\": true\n }\n]\n"},
		{[]string{"replay"}, "No dead letters that can be replayed.\n"},
	} {
		got, err := deadLettersCommand(t, append(step.args, "--journal-dir", dir)...)
		if err != nil {
			t.Fatalf("%v: %v", step.args, err)
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%v: (-want +got)\n%s", step.args, diff)
		}
	}
	for _, sequence := range []string{"1", "2"} {
		if got, err := deadLettersCommand(t, "replay", sequence, "--journal-dir", dir); err == nil {
			t.Errorf("replay %s: no error, printed %q", sequence, got)
		}
	}
}

// A journal that is damaged is as good as it can be read, and says so.
func TestDeadLettersOfADamagedJournal(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir, journal.Options{MaxBytes: 1 << 20, Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	entry, err := j.Append("chat", merge.Change{
		Stamp: stamp.Stamp{Rank: stamp.RankTold, HLC: 1}, Command: "callbackAfterSetGroupInfoExCommand", Received: time.Unix(0, 0),
		Spec: openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "G002", GroupName: new("a secret name")},
	})
	if err := errors.Join(err, j.Bury([]uint64{entry.Sequence}), j.Close()); err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("no manifests, error %v", err)
	}
	for _, manifest := range manifests {
		if err := os.Remove(manifest); err != nil {
			t.Fatal(err)
		}
	}
	got, err := deadLettersCommand(t, "list", "-o", "json", "--journal-dir", dir)
	if err != nil || !strings.Contains(got, `"sequence": 1,`) {
		t.Errorf("it prints %q, error %v", got, err)
	}
}

func TestDeadLettersRefuses(t *testing.T) {
	for name, args := range map[string][]string{
		"no directory":               {"list"},
		"a directory without one":    {"list", "--journal-dir", filepath.Join(t.TempDir(), "none")},
		"what is no sequence":        {"replay", "--journal-dir", t.TempDir(), "first"},
		"another output":             {"list", "-o", "yaml", "--journal-dir", t.TempDir()},
		"a list with a stray number": {"list", "--journal-dir", t.TempDir(), "1"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := deadLettersCommand(t, args...); err == nil {
				t.Errorf("no error, printed %q", got)
			}
		})
	}
}
