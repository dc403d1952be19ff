package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"qianma/services/qianma/internal/province"
)

// TestIssue: before the province was ever up, and again under the authority
// that was made then.
func TestIssue(t *testing.T) {
	data, out := filepath.Join(t.TempDir(), "data"), t.TempDir()
	var first []byte
	for _, name := range []string{"nats-1", "etcd-1"} {
		c := Command{Flags: province.Flags{Data: data}, Name: name, Host: []string{"nats.example", "10.1.0.1"}, Out: out}
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
		authority, err := os.ReadFile(filepath.Join(data, "ca", "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && string(first) != string(authority) {
			t.Error("the authority was replaced")
		}
		first = authority
		pair, err := tls.LoadX509KeyPair(filepath.Join(out, name+".pem"), filepath.Join(out, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(authority)
		for _, host := range c.Host {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
				t.Error(err)
			}
		}
	}
}
