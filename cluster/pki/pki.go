// Package pki makes the province's certificates and the TLS configurations
// that use them.
//
// Promises: every connection between nodes is mutual TLS 1.3; each side has
// proved that the province's authority named it; a file that is rotated on
// disk is taken up by the next handshake, without a restart, and connections
// already up are left alone; while the bundle holds an old and a new authority
// both are trusted; a file caught half-written is ignored until it is whole.
// Private keys are written with mode 0600.
//
// It refuses to know what a process does: a certificate says who, never what
// they may. All functions and the configurations they return are safe for
// concurrent use; an Authority is for one goroutine at a time.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Files are the three PEM files a process needs.
type Files struct {
	CA   string // every authority that is trusted, newest first
	Cert string // this process's certificate
	Key  string // its private key, mode 0600
}

// How long certificates live, and how far a clock may be behind.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	processLife   = 365 * 24 * time.Hour
	backdate      = time.Hour
)

const (
	authorityCert = "ca.pem"
	authorityKey  = "ca.key"
	scheme        = "qianma" // of the URI that names a process in its certificate
)

// Authority signs the certificates of one province.
type Authority struct {
	// Life is how long the certificates it issues are valid; 0: a year.
	Life time.Duration

	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes an authority in dir (ca.pem, ca.key). It refuses to
// replace one that is there: use Rotate on that.
func NewAuthority(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, authorityKey)); err == nil {
		return nil, fmt.Errorf("pki: %s already holds an authority; load or rotate it", dir)
	}
	a := &Authority{dir: dir}
	return a, a.renew(nil)
}

// LoadAuthority opens the authority that NewAuthority made in dir.
func LoadAuthority(dir string) (*Authority, error) {
	certs, err := readCerts(filepath.Join(dir, authorityCert))
	if err != nil {
		return nil, err
	}
	key, err := readKey(filepath.Join(dir, authorityKey))
	if err != nil {
		return nil, err
	}
	// A crash between the two writes of Rotate leaves the old key beside a
	// bundle that opens with the new certificate, so the key picks its own.
	for _, c := range certs {
		if pub, ok := key.Public().(*ecdsa.PublicKey); ok && pub.Equal(c.PublicKey) {
			return &Authority{dir: dir, cert: c, key: key}, nil
		}
	}
	return nil, fmt.Errorf("pki: no certificate in %s belongs to %s", authorityCert, authorityKey)
}

// Bundle is the file that holds every trusted authority.
func (a *Authority) Bundle() string { return filepath.Join(a.dir, authorityCert) }

// Rotate replaces the authority by a new one. The bundle keeps the old
// certificates behind the new, so everything issued before stays valid until
// Retire.
func (a *Authority) Rotate() error {
	old, err := readCerts(a.Bundle())
	if err != nil {
		return err
	}
	return a.renew(old)
}

// Retire drops every authority but the present one from the bundle. Whatever
// they issued is refused from the next handshake on.
func (a *Authority) Retire() error {
	return writeFile(a.Bundle(), encodeCerts(a.cert), 0o644)
}

// renew makes a key and a self-signed certificate. The bundle is written
// before the key: a crash between the two leaves an authority that works.
func (a *Authority) renew(old []*x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl, err := template("Qianma province authority", authorityLife)
	if err != nil {
		return err
	}
	tmpl.IsCA, tmpl.MaxPathLenZero = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	cert, err := sign(tmpl, tmpl, key.Public(), key)
	if err != nil {
		return err
	}
	if err := writeFile(a.Bundle(), encodeCerts(append([]*x509.Certificate{cert}, old...)...), 0o644); err != nil {
		return err
	}
	if err := writeKey(filepath.Join(a.dir, authorityKey), key); err != nil {
		return err
	}
	a.cert, a.key = cert, key
	return nil
}

// Issue makes a certificate for the process of that name, reachable as hosts
// (names or IP addresses), and writes it to dir as name.pem and name.key. A
// certificate that is there is replaced; whoever serves it takes it up at the
// next handshake.
func (a *Authority) Issue(dir, name string, hosts ...string) (Files, error) {
	life := a.Life
	if life == 0 {
		life = processLife
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Files{}, err
	}
	tmpl, err := template(name, life)
	if err != nil {
		return Files{}, err
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	tmpl.URIs = []*url.URL{{Scheme: scheme, Host: name}}
	tmpl.DNSNames = []string{name}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else if h != name {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	cert, err := sign(tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return Files{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Files{}, err
	}
	f := Files{CA: a.Bundle(), Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key")}
	return f, errors.Join(writeKey(f.Key, key), writeFile(f.Cert, encodeCerts(cert), 0o644))
}

// Expiry is when the certificate in f ends, so that whoever runs the province
// can issue the next one in time.
func Expiry(f Files) (time.Time, error) {
	certs, err := readCerts(f.Cert)
	if err != nil {
		return time.Time{}, err
	}
	return certs[0].NotAfter, nil
}

func template(name string, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name, Organization: []string{"Qianma"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		BasicConstraintsValid: true,
	}, nil
}

func sign(tmpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func encodeCerts(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func readCerts(path string) ([]*x509.Certificate, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		var b *pem.Block
		if b, raw = pem.Decode(raw); b == nil {
			break
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("pki: %s: %w", path, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("pki: %s holds no certificate", path)
	}
	return certs, nil
}

func readKey(path string) (crypto.Signer, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b, _ := pem.Decode(raw)
	if b == nil {
		return nil, fmt.Errorf("pki: %s holds no key", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("pki: %s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("pki: %s holds a key that cannot sign", path)
	}
	return signer, nil
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// writeFile replaces a file so that a reader sees the old one or the new one.
func writeFile(path string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".pki-*") // 0600 from birth
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
