package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func TestReceiverOptions(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		// refused is part of the error; empty if there is to be none.
		refused string
	}{
		"nothing":                    {nil, ""},
		"the API server":             {[]string{"--ack=apiserver"}, ""},
		"a journal":                  {[]string{"--ack=journal", "--journal-dir=/journal"}, ""},
		"a name":                     {[]string{"--name=receiver-0"}, ""},
		"no name":                    {[]string{"--name="}, "--name is empty"},
		"a journal in an empty text": {[]string{"--ack=journal", "--journal-dir="}, "--ack=journal needs --journal-dir"},
		"another word":               {[]string{"--ack=disk", "--journal-dir=/journal"}, "--ack=disk is neither journal nor apiserver"},
		"no word":                    {[]string{"--ack="}, "--ack= is neither journal nor apiserver"},
		"a journal without room":     {[]string{"--journal-max-bytes=0"}, "--journal-max-bytes must be positive"},
		"a negative reserve":         {[]string{"--journal-reserve-bytes=-1"}, "--journal-reserve-bytes must not be negative"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("POD_NAME", "receiver-0")
			var o receiverOptions
			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			o.bind(flags)
			if err := flags.Parse(tc.args); err != nil {
				t.Fatal(err)
			}
			switch err := o.validate(); {
			case tc.refused == "" && err != nil:
				t.Error(err)
			case tc.refused != "" && (err == nil || !strings.Contains(err.Error(), tc.refused)):
				t.Errorf("error is %v, want one that says %q", err, tc.refused)
			}
		})
	}
}

func TestReceiverOptionsByDefault(t *testing.T) {
	t.Setenv("POD_NAME", "receiver-0")
	var o receiverOptions
	o.bind(pflag.NewFlagSet("", pflag.ContinueOnError))
	want := receiverOptions{
		name: "receiver-0", address: ":8080", ack: ackJournal, journalDir: "/var/lib/groupinfo-operator/journal",
		journalBytes: 1 << 30, journalReserve: 64 << 20, drain: 5 * time.Second,
	}
	if diff := cmp.Diff(want, o, cmp.AllowUnexported(receiverOptions{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
