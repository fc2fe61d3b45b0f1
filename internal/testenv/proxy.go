package testenv

import (
	"net"
	"net/url"
	"sync"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// Proxy is a way to the API server that a test can cut, for one client alone. It passes on bytes, so TLS is that of the
// API server.
type Proxy struct {
	upstream string
	listener net.Listener
	pumps    sync.WaitGroup

	mu    sync.Mutex
	fault fault
	// changed is closed when the fault changes.
	changed chan struct{}
	open    map[net.Conn]struct{}
}

// fault is what is wrong with the way. The zero value is nothing.
type fault struct {
	refuse, swallow bool
	delay           time.Duration
}

// Proxy starts a proxy in front of the API server.
func (e *Environment) Proxy() (*Proxy, error) {
	upstream, err := url.Parse(e.Config.Host)
	if err != nil {
		return nil, err
	}
	return newProxy(upstream.Host)
}

func newProxy(upstream string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		upstream: upstream,
		listener: listener,
		changed:  make(chan struct{}),
		open:     map[net.Conn]struct{}{},
	}
	p.pumps.Go(p.accept)
	return p, nil
}

// Kubeconfig writes a kubeconfig for a user that goes through the proxy, and returns its path.
func (p *Proxy) Kubeconfig(e *Environment, user string, groups ...string) (string, error) {
	path, err := e.Kubeconfig(user, groups...)
	if err != nil {
		return "", err
	}
	config, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return "", err
	}
	for _, cluster := range config.Clusters {
		cluster.Server = "https://" + p.listener.Addr().String()
	}
	return path, clientcmd.WriteToFile(*config, path)
}

// Refuse resets the connections and every new one, as a node does on which no API server runs.
func (p *Proxy) Refuse() { p.set(fault{refuse: true}) }

// Swallow keeps every connection and passes nothing on, as a network does that drops packets. What was swallowed arrives
// once the way is mended, as it does by TCP's repetitions.
func (p *Proxy) Swallow() { p.set(fault{swallow: true}) }

// Slow holds up every piece of data.
func (p *Proxy) Slow(delay time.Duration) { p.set(fault{delay: delay}) }

// Mend ends every fault.
func (p *Proxy) Mend() { p.set(fault{}) }

// Close ends the proxy and its connections.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.Refuse()
	p.pumps.Wait()
	return err
}

func (p *Proxy) set(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
	if f.refuse {
		for conn := range p.open {
			reset(conn)
		}
	}
}

// reset closes a connection so that the peer hears of an error rather than of an end. Its errors tell that it is closed.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.upstream)
		if err != nil || !p.admit(client, server) {
			reset(client)
			if err == nil {
				reset(server)
			}
			continue
		}
		p.pumps.Go(func() { p.pump(client, server) })
		p.pumps.Go(func() { p.pump(server, client) })
	}
}

// admit takes in the two halves of a connection, unless connections are refused.
func (p *Proxy) admit(halves ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault.refuse {
		return false
	}
	for _, half := range halves {
		p.open[half] = struct{}{}
	}
	return true
}

// pump passes on what comes from one side until either closes, and then closes both.
func (p *Proxy) pump(from, to net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.hold()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, half := range []net.Conn{from, to} {
		delete(p.open, half)
		// The other direction may have closed it.
		_ = half.Close()
	}
}

// hold returns when a piece of data may go on.
func (p *Proxy) hold() {
	for {
		p.mu.Lock()
		f, changed := p.fault, p.changed
		p.mu.Unlock()
		switch {
		case f.swallow:
			<-changed
		case f.delay > 0:
			select {
			case <-changed:
			case <-time.After(f.delay):
				return
			}
		default:
			return
		}
	}
}
