package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Server serves a Handler on a listener.
type Server struct {
	Handler  *Handler
	Listener net.Listener
	// Drain is how long the server goes on accepting after it was told to end: load balancers need some seconds to
	// notice that it is not ready any more.
	Drain time.Duration
}

// Run serves until the context ends, drains, and lets the requests in flight finish.
func (s *Server) Run(ctx context.Context) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	server := &http.Server{
		Handler:           s.Handler,
		Protocols:         protocols,
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.Listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve callbacks: %w", err)
	case <-ctx.Done():
	}
	s.Handler.Drain()
	select {
	case err := <-served:
		return fmt.Errorf("serve callbacks: %w", err)
	case <-time.After(s.Drain):
	}
	// The context of the shutdown outlives the one that has just ended.
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil {
		return fmt.Errorf("finish the callbacks in flight: %w", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve callbacks: %w", err)
	}
	return nil
}
