package testenv

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo starts a proxy in front of a server that returns what it gets, and connects through it.
func echo(t *testing.T) (*Proxy, func() net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				// It ends with the client.
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	proxy, err := newProxy(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	return proxy, func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", proxy.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

// refused reports whether a connection that comes now is turned away, which may show at once or when it is used.
func (p *Proxy) refused(patience time.Duration) bool {
	conn, err := net.Dial("tcp", p.listener.Addr().String())
	if err != nil {
		return true
	}
	defer conn.Close()
	_, err = say(conn, "refused", patience)
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// say sends a text and returns what comes back within the time, and how it ended.
func say(conn net.Conn, text string, within time.Duration) (string, error) {
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	return hear(conn, len(text), within)
}

func hear(conn net.Conn, length int, within time.Duration) (string, error) {
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	answer := make([]byte, length)
	n, err := io.ReadFull(conn, answer)
	return string(answer[:n]), err
}

func TestProxy(t *testing.T) {
	const patience, moment = 10 * time.Second, 100 * time.Millisecond
	proxy, dial := echo(t)
	conn := dial()
	check := func(conn net.Conn, text string) {
		t.Helper()
		if got, err := say(conn, text, patience); got != text || err != nil {
			t.Fatalf("%q comes back as %q, %v", text, got, err)
		}
	}
	check(conn, "before")

	proxy.Swallow()
	if got, err := say(conn, "swallowed", moment); got != "" || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("while swallowing comes %q, %v", got, err)
	}
	proxy.Mend()
	if got, err := hear(conn, len("swallowed"), patience); got != "swallowed" || err != nil {
		t.Fatalf("mended, there comes %q, %v", got, err)
	}

	proxy.Slow(moment)
	started := time.Now()
	check(conn, "slow")
	if took := time.Since(started); took < 2*moment {
		t.Errorf("slow took %s", took)
	}

	proxy.Refuse()
	if got, err := say(conn, "refused", patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the open connection answers %q, %v", got, err)
	}
	if !proxy.refused(patience) {
		t.Error("a new connection is not refused")
	}
	proxy.Mend()
	check(dial(), "after")
}
