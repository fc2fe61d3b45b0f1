package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// linger is how long a connection is still read after its sender was told of its end. A callback that was on its way
	// then arrives within a round trip, or never.
	linger = time.Second

	// retirePoll is how often connections are looked at while the server ends.
	retirePoll = 10 * time.Millisecond
)

// Server serves a Handler on a listener.
type Server struct {
	Handler  *Handler
	Listener net.Listener
	// Drain is how long the server goes on accepting after it was told to end: load balancers need some seconds to
	// notice that it is not ready any more.
	Drain time.Duration
}

// Run serves until the context ends, drains, and lets the requests in flight finish. It returns at most shutdownTimeout
// after it has drained.
//
// http.Server.Shutdown is of no use here. It closes idle connections without notice, and drops every request that it has
// read and not yet begun to serve; OpenIM's client repeats neither.
func (s *Server) Run(ctx context.Context) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	open := newConnections(readHeaderTimeout-linger, idleTimeout-linger)
	server := &http.Server{
		Handler:           s.Handler,
		Protocols:         protocols,
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		ConnState:         open.follow,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.Listener) }()
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("serve callbacks: %w", err), server.Close())
	case <-ctx.Done():
	}
	s.Handler.Drain()
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("serve callbacks: %w", err), server.Close())
	case <-time.After(s.Drain):
	}
	if err := s.Listener.Close(); err != nil {
		return errors.Join(fmt.Errorf("stop listening: %w", err), server.Close())
	}
	// From here on there are no new connections.
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		return errors.Join(fmt.Errorf("serve callbacks: %w", err), server.Close())
	}
	// What the end takes outlives the context that has just ended.
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := open.retire(deadline); err != nil {
		return errors.Join(fmt.Errorf("finish the callbacks in flight: %w", err), server.Close())
	}
	return server.Close()
}

// connections are those that are open. None is closed while its sender may write: the sender is told first, by closing the
// direction to it, and has linger to notice, close its own, and have heard what it wrote in that moment. The reply to that
// cannot be delivered any more, but what it tells is stored.
type connections struct {
	// newFor and idleFor are how long a connection may be without a first and without another request.
	newFor, idleFor time.Duration

	mu   sync.Mutex
	open map[net.Conn]*connection
}

type connection struct {
	net.Conn
	state http.ConnState
	since time.Time
	// told is when the sender was told of the end, and zero before.
	told  time.Time
	timer *time.Timer
}

func newConnections(newFor, idleFor time.Duration) *connections {
	return &connections{newFor: newFor, idleFor: idleFor, open: map[net.Conn]*connection{}}
}

// follow notes what has become of a connection. It is an http.Server's ConnState.
func (c *connections) follow(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.open[conn]
	if known == nil {
		known = &connection{Conn: conn}
		known.timer = time.AfterFunc(c.newFor, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			known.tell()
		})
		c.open[conn] = known
	}
	known.state, known.since = state, time.Now()
	switch state {
	case http.StateNew:
	case http.StateIdle:
		known.timer.Reset(c.idleFor)
	case http.StateActive:
		known.timer.Stop()
	case http.StateClosed, http.StateHijacked:
		known.timer.Stop()
		delete(c.open, conn)
	}
}

// tell tells the sender that the connection ends, unless it is about to hear so in a reply. The caller holds the lock.
func (c *connection) tell() {
	if !c.told.IsZero() || c.state != http.StateNew && c.state != http.StateIdle {
		return
	}
	c.told = time.Now()
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		// It fails if the sender has closed the connection already.
		_ = half.CloseWrite()
	}
}

// retire returns when no more callback can come, on connections to which no more are added: nothing is in flight, and each
// sender has closed its connection or has been told long ago. It fails with the context.
func (c *connections) retire(ctx context.Context) error {
	poll := time.NewTicker(retirePoll)
	defer poll.Stop()
	for !c.retired(time.Now()) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		}
	}
	return nil
}

func (c *connections) retired(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	retired := true
	for _, conn := range c.open {
		// Whoever has just connected is about to send, and can still be answered.
		if conn.state != http.StateNew || now.Sub(conn.since) >= linger {
			conn.tell()
		}
		retired = retired && conn.state != http.StateActive && !conn.told.IsZero() && now.Sub(conn.told) >= linger
	}
	return retired
}
