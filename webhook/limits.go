package webhook

import "time"

const (
	// maxBodyBytes bounds a callback's body. OpenIM's bodies are a few kilobytes, texts of 2 MB have been seen, and the
	// largest callback, the dismissal of a group with 100,000 members whose IDs have 64 characters, takes 6.7 MB.
	maxBodyBytes = 8 << 20

	// maxBytesInFlight bounds the bodies that are worked on at once, over all senders: whoever has one tenant's token must
	// not be able to end the process that serves the others. Reading and decoding a body takes about three times its size.
	maxBytesInFlight = 64 << 20

	// maxHeaderBytes bounds the request line and the headers. OpenIM's take some 300 bytes.
	maxHeaderBytes = 16 << 10

	// readHeaderTimeout and readTimeout end requests that trickle in. OpenIM itself gives up after 5 s by default, and
	// after 15 s at the most.
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second

	// acknowledgeTimeout bounds how long a change may take to become durable. It ends before OpenIM's default timeout of
	// 5 s, so that OpenIM logs our reason instead of its own timeout.
	acknowledgeTimeout = 4 * time.Second

	// writeTimeout bounds a whole exchange, from the end of the headers to the end of the reply.
	writeTimeout = readTimeout + acknowledgeTimeout + time.Second

	// idleTimeout is long on purpose: OpenIM's client keeps its connections for ever and never sends a callback again that
	// it wrote to a connection which we were closing.
	idleTimeout = 24 * time.Hour

	// shutdownTimeout lets the requests that are in flight end.
	shutdownTimeout = writeTimeout
)
