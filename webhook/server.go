package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// Server serves a Handler on a listener. It runs on every replica, leader or not.
type Server struct {
	Handler  http.Handler
	Listener net.Listener
}

// Start serves until the context ends, then lets the requests in flight finish. It implements manager.Runnable.
func (s *Server) Start(ctx context.Context) error {
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

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica receives.
func (s *Server) NeedLeaderElection() bool { return false }
