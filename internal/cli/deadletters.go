package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/groupinfo-operator/groupinfo-operator/internal/naming"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
)

func newDeadLettersCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "dead-letters",
		Short: "Show and replay the changes that the API server would not take",
		Long: `dead-letters shows the changes in a receiver's journal that were put aside because the API server would never take
them, and lets them be tried again. One process at a time can have a journal open, so stop the receiver first. What a
change says is never shown.`,
	}
	cmd.PersistentFlags().StringVar(&dir, "journal-dir", "", "directory of the journal")
	cmd.AddCommand(
		&cobra.Command{
			Use:   "list",
			Short: "List them",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return withJournal(dir, func(j *journal.Journal) error { return listDeadLetters(j, cmd.OutOrStdout()) })
			},
		},
		&cobra.Command{
			Use:   "replay [sequence ...]",
			Short: "Let the receiver try them again at its next start: the given ones, or all",
			RunE: func(cmd *cobra.Command, args []string) error {
				return withJournal(dir, func(j *journal.Journal) error { return replayDeadLetters(j, args, cmd.OutOrStdout()) })
			},
		},
	)
	return cmd
}

// withJournal opens the journal for as long as use takes.
func withJournal(dir string, use func(*journal.Journal) error) (err error) {
	if dir == "" {
		return errors.New("name the journal's directory with --journal-dir")
	}
	failed := make(chan error, 1)
	j, err := journal.Open(dir, journal.Options{ReadExisting: true, Log: logr.Discard(), Fatal: func(err error) { failed <- err }})
	if err != nil {
		return fmt.Errorf("%w; if a receiver has it open, stop that first", err)
	}
	used := make(chan error, 1)
	go func() { used <- use(j) }()
	select {
	case err := <-used:
		return errors.Join(err, j.Close())
	case err := <-failed:
		return err
	}
}

func listDeadLetters(j *journal.Journal, out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "SEQUENCE\tRECEIVED\tNAMESPACE\tOPENIMSERVER\tGROUPINFO\tCOMMAND\tFIELDS")
	found := false
	err := j.Dead(func(entry journal.Entry, unreadable error) error {
		found = true
		if unreadable != nil {
			_, err := fmt.Fprintf(table, "%d\t\t\t\t\t(cannot be read)\t\n", entry.Sequence)
			return err
		}
		change := entry.Change
		_, err := fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", entry.Sequence, change.Received.UTC().Format(time.RFC3339),
			entry.Namespace, change.Spec.ServerName, naming.Namer{}.GroupInfo(change.Spec.GroupID), change.Command,
			strings.Join(change.State().History[0].Fields, ","))
		return err
	})
	if err == nil && !found {
		_, err = fmt.Fprintln(out, "No dead letters.")
		return err
	}
	return errors.Join(err, table.Flush())
}

func replayDeadLetters(j *journal.Journal, chosen []string, out io.Writer) error {
	var sequences []uint64
	for _, text := range chosen {
		sequence, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a sequence; see dead-letters list", text)
		}
		sequences = append(sequences, sequence)
	}
	if len(chosen) == 0 {
		err := j.Dead(func(entry journal.Entry, unreadable error) error {
			if unreadable == nil {
				sequences = append(sequences, entry.Sequence)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := j.Resurrect(sequences); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d changes wait for the receiver's next start.\n", len(sequences))
	return err
}
