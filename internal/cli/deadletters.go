package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
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
	var dir, output string
	cmd := &cobra.Command{
		Use:   "dead-letters",
		Short: "Show and replay the changes that the API server would not take",
		Long: `dead-letters shows the changes in a receiver's journal that were put aside because the API server would never take
them, and lets them be tried again. One process at a time can have a journal open, so stop the receiver first. What a
change says is never shown.`,
	}
	cmd.PersistentFlags().StringVar(&dir, "journal-dir", "", "directory of the journal")
	list := &cobra.Command{
		Use:   "list",
		Short: "List them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("-o %s is not known; leave it out for a table, or use -o json", output)
			}
			return withJournal(dir, cmd.ErrOrStderr(), func(j *journal.Journal) error {
				if output == "json" {
					return printDeadLetters(j, cmd.OutOrStdout())
				}
				return listDeadLetters(j, dir, cmd.OutOrStdout())
			})
		},
	}
	list.Flags().StringVarP(&output, "output", "o", "", "json, instead of a table")
	cmd.AddCommand(
		list,
		&cobra.Command{
			Use:   "replay [sequence ...]",
			Short: "Let the receiver try them again at its next start: the given ones, or all that can be read",
			RunE: func(cmd *cobra.Command, args []string) error {
				return withJournal(dir, cmd.ErrOrStderr(), func(j *journal.Journal) error {
					return replayDeadLetters(j, dir, args, cmd.OutOrStdout())
				})
			},
		},
	)
	return cmd
}

// withJournal opens the journal for as long as use takes.
func withJournal(dir string, notes io.Writer, use func(*journal.Journal) error) (err error) {
	if dir == "" {
		return errors.New("name the journal's directory with --journal-dir")
	}
	failed := make(chan error, 1)
	fatal := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	j, err := journal.Open(dir, journal.Options{ReadExisting: true, Log: logr.Discard(), Fatal: fatal})
	if err != nil {
		return fmt.Errorf("%w; if a receiver has it open, stop that first", err)
	}
	if n := j.Quarantined(); n > 0 {
		fmt.Fprintf(notes, "The journal was damaged: %d directories %s hold the damaged files, of which everything readable was taken over.\n",
			n, "quarantine-…")
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

// deadLetter is what is shown of one.
type deadLetter struct {
	Sequence     uint64     `json:"sequence"`
	Unreadable   bool       `json:"unreadable,omitempty"`
	Received     *time.Time `json:"received,omitempty"`
	Namespace    string     `json:"namespace,omitempty"`
	OpenIMServer string     `json:"openIMServer,omitempty"`
	GroupInfo    string     `json:"groupInfo,omitempty"`
	Command      string     `json:"command,omitempty"`
	Fields       []string   `json:"fields,omitempty"`
}

func deadLetters(j *journal.Journal) ([]deadLetter, error) {
	letters := []deadLetter{}
	err := j.Dead(func(entry journal.Entry, unreadable error) error {
		letter := deadLetter{Sequence: entry.Sequence, Unreadable: unreadable != nil}
		if !letter.Unreadable {
			change := entry.Change
			letter.Received = new(change.Received.UTC())
			letter.Namespace = entry.Namespace
			letter.OpenIMServer = change.Spec.ServerName
			letter.GroupInfo = naming.Namer{}.GroupInfo(change.Spec.GroupID)
			letter.Command = change.Command
			letter.Fields = change.State().History[0].Fields
		}
		letters = append(letters, letter)
		return nil
	})
	return letters, err
}

func printDeadLetters(j *journal.Journal, out io.Writer) error {
	letters, err := deadLetters(j)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(letters)
}

func listDeadLetters(j *journal.Journal, dir string, out io.Writer) error {
	letters, err := deadLetters(j)
	if err != nil {
		return err
	}
	if len(letters) == 0 {
		_, err = fmt.Fprintln(out, "No dead letters.")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "SEQUENCE\tRECEIVED\tNAMESPACE\tOPENIMSERVER\tGROUPINFO\tCOMMAND\tFIELDS")
	unreadable := 0
	for _, l := range letters {
		if l.Unreadable {
			unreadable++
			fmt.Fprintf(table, "%d\t\t\t\t\t(cannot be read)\t\n", l.Sequence)
			continue
		}
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Sequence, l.Received.Format(time.RFC3339),
			l.Namespace, l.OpenIMServer, l.GroupInfo, l.Command, strings.Join(l.Fields, ","))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if readable := len(letters) - unreadable; readable > 0 {
		_, err = fmt.Fprintf(out, "\nThe receiver's log says why they were put aside. When that is mended, let the receiver try them again with\n"+
			"    groupinfo-operator dead-letters replay --journal-dir %s [SEQUENCE ...]\n", dir)
	}
	if unreadable > 0 {
		_, unreadableErr := fmt.Fprintf(out, "\n%d cannot be read, by this version at least, and are kept: they are not replayed.\n", unreadable)
		err = errors.Join(err, unreadableErr)
	}
	return err
}

func replayDeadLetters(j *journal.Journal, dir string, chosen []string, out io.Writer) error {
	letters, err := deadLetters(j)
	if err != nil {
		return err
	}
	var sequences []uint64
	for _, text := range chosen {
		sequence, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a sequence; see dead-letters list", text)
		}
		at := slices.IndexFunc(letters, func(l deadLetter) bool { return l.Sequence == sequence })
		if at < 0 {
			return fmt.Errorf("there is no dead letter %d, and nothing was replayed; see dead-letters list", sequence)
		}
		if letters[at].Unreadable {
			return fmt.Errorf("dead letter %d cannot be read, and nothing was replayed; leave it out", sequence)
		}
		sequences = append(sequences, sequence)
	}
	for _, l := range letters {
		if len(chosen) == 0 && !l.Unreadable {
			sequences = append(sequences, l.Sequence)
		}
	}
	if err := j.Resurrect(sequences); err != nil {
		return err
	}
	if len(sequences) == 0 {
		_, err = fmt.Fprintln(out, "No dead letters that can be replayed.")
		return err
	}
	_, err = fmt.Fprintf(out, "%d changes wait for the receiver's next start with --ack=journal --journal-dir %s.\n"+
		"Those that the API server still refuses become dead letters again.\n", len(sequences), dir)
	return err
}
