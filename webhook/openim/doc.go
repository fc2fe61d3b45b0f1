// Package openim is where the bytes of an OpenIM callback become a [Callback], and where a [Reply] becomes the bytes
// that OpenIM reads.
//
// It knows OpenIM's callback protocol and nothing else: no HTTP server, no Kubernetes, no time. In comes the command
// from the URL and the request body; out comes what OpenIM says about a group, in one form for all the dialects that
// servers send and documentation shows:
//
//	URL's command ┐
//	              ├─ Decode ─▶ Callback ─▶ (stamped, journalled and merged elsewhere)
//	body ─────────┘
//
// [Encode] goes the other way. It plays OpenIM for the "send" command and for tests.
//
// # Told, cleared, unchanged
//
// A callback is a change, not a state. In [GroupFields] a nil pointer says that OpenIM told nothing about the field; a
// pointer to "" says that the field was cleared. How a body says "unchanged" depends on the command:
// callbackAfterSetGroupInfoCommand has plain strings and means it with "", callbackAfterSetGroupInfoExCommand means it
// with null or by leaving the field out.
//
// Only the members that a command has count, and not each of those is believed: the creation's number of members is none.
// The dismissal's list of members, which can take megabytes, is checked and skipped. See layout.go for what each command
// tells.
//
// # Where the facts come from
//
// Three sources, which do not agree with each other; [Decode] takes what any of them shows.
//   - The source of open-im-server, v3.0 to v3.8.4: names of commands and older names, order of members, which strings
//     mean "unchanged".
//   - OpenIM's documentation: the wrappers ({"value": x}), the groupInfoForSet object, the query form of the URL, and
//     the names of the reply's members.
//   - Bodies captured from a running open-im-server: the "server" files under testdata.
//
// What follows from the protocol for the caller: callbacks arrive once, unsigned, and out of order, and
// [Callback.OperationID] identifies nothing. Use it for tracing only.
//
// # Strictness
//
// The receiver has no second try, and two readers of one body must not see two different things. So [Decode] refuses
// what a JSON reader could take in more than one way: duplicate keys, keys that differ from a field's name only in case,
// invalid UTF-8, halves of surrogate pairs, data after the object. Unknown fields are skipped, but their syntax counts.
// Every refusal is an [Error] with a [Kind] from a closed set, and no text from the body ever gets into its message.
package openim
