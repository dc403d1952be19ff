package mux

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// DialTimeout bounds a dial whose context is more patient.
const DialTimeout = 3 * time.Second

// Dialer reaches other processes by name. The zero value of every field but
// Resolve is usable. A Dialer must not be changed once in use.
type Dialer struct {
	// TLS is the configuration of pki.Client; nil means plain text. The peer
	// must prove to be the process that was asked for.
	TLS *tls.Config
	// Resolve says where a process listens now. It is asked at every dial.
	Resolve func(name string) (addr string, err error)
	// From is a local IP address to dial from; empty: any.
	From string
}

// RPC connects to a process's RPC server.
func (d *Dialer) RPC(ctx context.Context, name string) (net.Conn, error) {
	// The caller's HTTP/2 preface is what tells the mux.
	return d.dial(ctx, name, nil)
}

// Group connects to one raft group of a process. A process that does not have
// the group hangs up.
func (d *Dialer) Group(ctx context.Context, name, group string) (net.Conn, error) {
	if len(group) > MaxGroupID {
		return nil, fmt.Errorf("mux: the id of group %q is longer than %d bytes", group, MaxGroupID)
	}
	return d.dial(ctx, name, append([]byte{openGroup, byte(len(group))}, group...))
}

func (d *Dialer) dial(ctx context.Context, name string, hello []byte) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	addr, err := d.Resolve(name)
	if err != nil {
		return nil, fmt.Errorf("mux: where is %s? %w", name, err)
	}
	nd := net.Dialer{KeepAliveConfig: keepAlive}
	if d.From != "" {
		ip := net.ParseIP(d.From)
		if ip == nil {
			return nil, fmt.Errorf("mux: %q is not an IP address to dial from", d.From)
		}
		nd.LocalAddr = &net.TCPAddr{IP: ip}
	}
	c, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("mux: dial %s: %w", name, err)
	}
	if c, err = d.greet(ctx, c, name, hello); err != nil {
		return nil, fmt.Errorf("mux: greet %s: %w", name, err)
	}
	return c, nil
}

// greet secures the connection and says what it is for. It closes c on error.
func (d *Dialer) greet(ctx context.Context, c net.Conn, name string, hello []byte) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	err := c.SetDeadline(deadline)
	if err == nil && d.TLS != nil {
		cfg := d.TLS.Clone()
		cfg.ServerName = name
		t := tls.Client(c, cfg)
		err, c = t.HandshakeContext(ctx), t
	}
	if err == nil && len(hello) > 0 {
		_, err = c.Write(hello)
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
