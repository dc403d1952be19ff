package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Server returns the configuration of a listener: it shows the certificate in
// f and lets in only who holds one of the province's.
func Server(f Files) (*tls.Config, error) {
	s, err := open(f)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Not RequireAndVerifyClientCert: that compares with a fixed set of
		// authorities. VerifyConnection below compares with today's files.
		ClientAuth:     tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.own() },
		VerifyConnection: func(cs tls.ConnectionState) error {
			return s.verify(cs, x509.ExtKeyUsageClientAuth, "")
		},
		// A resumed session would keep showing the certificate of before a
		// rotation. Connections live long: a full handshake each is cheap.
		SessionTicketsDisabled: true,
	}, nil
}

// Client returns the configuration of a dialler: it shows the certificate in f
// and talks only to who holds one of the province's. When ServerName is set to
// a name, the peer must be that one. TLS sends no name to a peer dialled by
// bare IP address, so such a peer is proved to be of the province and no more;
// use ClientOf to hold it to its address.
func Client(f Files) (*tls.Config, error) { return ClientOf(f, "") }

// ClientOf is Client for one peer: its certificate must be valid for host,
// which may be an IP address.
func ClientOf(f Files, host string) (*tls.Config, error) {
	s, err := open(f)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: host,
		// The standard check compares with a fixed set of authorities;
		// VerifyConnection makes the same checks against today's files.
		InsecureSkipVerify:   true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.own() },
		VerifyConnection: func(cs tls.ConnectionState) error {
			return s.verify(cs, x509.ExtKeyUsageServerAuth, host)
		},
	}, nil
}

// PeerName is the process the other side proved to be; "" when it proved none.
func PeerName(cs tls.ConnectionState) string {
	if len(cs.PeerCertificates) == 0 {
		return ""
	}
	for _, u := range cs.PeerCertificates[0].URIs {
		if u.Scheme == scheme {
			return u.Host
		}
	}
	return ""
}

// source holds the files as last read whole.
type source struct {
	files Files

	mu    sync.Mutex
	state [3]stamp
	cert  *tls.Certificate
	roots *x509.CertPool
}

// stamp tells one version of a file from another. Rotation renames a new file
// into place, so the inode changes even within one tick of the clock.
type stamp struct{ info os.FileInfo }

func (s stamp) same(o os.FileInfo) bool {
	return s.info != nil && os.SameFile(s.info, o) && s.info.ModTime().Equal(o.ModTime()) && s.info.Size() == o.Size()
}

func open(f Files) (*source, error) {
	s := &source{files: f}
	if err := s.read(); err != nil {
		return nil, err
	}
	return s, nil
}

// current returns the newest whole state of the files. Three stats a handshake
// cost nothing beside the handshake's own arithmetic.
func (s *source) current() (*tls.Certificate, *x509.CertPool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Files that cannot be read or do not fit together yet leave what we
	// have: a rotation under way must not close the door.
	_ = s.refresh()
	return s.cert, s.roots
}

func (s *source) read() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refresh()
}

func (s *source) refresh() error {
	var infos [3]os.FileInfo
	changed := false
	for i, path := range []string{s.files.CA, s.files.Cert, s.files.Key} {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("pki: %w", err)
		}
		infos[i] = info
		changed = changed || !s.state[i].same(info)
	}
	if !changed {
		return nil
	}
	authorities, err := readCerts(s.files.CA)
	if err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(s.files.Cert, s.files.Key)
	if err != nil {
		return fmt.Errorf("pki: %s and %s: %w", s.files.Cert, s.files.Key, err)
	}
	roots := x509.NewCertPool()
	for _, c := range authorities {
		roots.AddCert(c)
	}
	s.cert, s.roots = &cert, roots
	for i := range infos {
		s.state[i] = stamp{infos[i]}
	}
	return nil
}

// own is the certificate to show. Showing one that has ended would only make
// the other side hang up without a reason, so it is refused here, in words.
func (s *source) own() (*tls.Certificate, error) {
	cert, _ := s.current()
	if time.Now().After(cert.Leaf.NotAfter) {
		return nil, fmt.Errorf("pki: our own certificate (%s) ended %s; issue a new one",
			cert.Leaf.Subject.CommonName, cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return cert, nil
}

func (s *source) verify(cs tls.ConnectionState, usage x509.ExtKeyUsage, host string) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("pki: the peer showed no certificate")
	}
	if host == "" && usage == x509.ExtKeyUsageServerAuth {
		host = cs.ServerName
	}
	_, roots := s.current()
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	leaf := cs.PeerCertificates[0]
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, DNSName: host, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	return explain(leaf, host, err)
}

// explain says in words what a failed verification means for operations.
func explain(leaf *x509.Certificate, host string, err error) error {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
	)
	who := leaf.Subject.CommonName
	switch {
	case err == nil:
		return nil
	case time.Now().After(leaf.NotAfter):
		return fmt.Errorf("pki: the certificate of %q ended %s; issue a new one: %w",
			who, leaf.NotAfter.UTC().Format(time.RFC3339), err)
	case errors.As(err, &unknown):
		return fmt.Errorf("pki: the certificate of %q was issued by an authority we do not trust; is it of another province, or was its authority retired? %w", who, err)
	case errors.As(err, &name):
		return fmt.Errorf("pki: asked for %q but reached %q: %w", host, who, err)
	}
	return fmt.Errorf("pki: the certificate of %q is not acceptable: %w", who, err)
}
