package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// New returns the command line.
func New(version string) *cobra.Command {
	root := &cobra.Command{
		Use:   "groupinfo-operator",
		Short: "OpenIM's chat groups as Kubernetes objects",
		Long: "groupinfo-operator receives OpenIM's callbacks and keeps each chat group as a GroupInfo, and whatever a GroupSync\n" +
			"asks for in step with it.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		newServeCommand(version, "receiver", "Receive callbacks (run as many as you like)", roles{receiver: true}),
		newServeCommand(version, "controller", "Reconcile GroupInfos, GroupSyncs and OpenIMServers (one at a time is active)", roles{controller: true}),
		newServeCommand(version, "all", "Receive and reconcile in one process", roles{receiver: true, controller: true}),
		newSendCommand(),
		newDeadLettersCommand(),
		&cobra.Command{
			Use:   "version",
			Short: "Print the version",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), version)
				return err
			},
		},
	)
	return root
}
