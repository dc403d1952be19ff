package province

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"qianma/cluster/pki"
	"qianma/cluster/topology"
)

// memory is the soft limit of each process's heap, in MiB.
var memory = map[string]int{"nucleic": 320, "vaccine": 96, "display": 160, "middlestore": 224, "backbone": 160}

// procs is how many processors one of the two dozen processes of a machine
// may use at once. More than a share of them each costs the province more in
// threads that wake to look for work than it gains.
func procs() int { return max(1, runtime.NumCPU()/4) }

// renewBefore is how long before its end a certificate is replaced.
const renewBefore = 30 * 24 * time.Hour

// Prepare makes what a process needs before it starts: directory, certificate,
// configuration. What is there and good stays; a process whose directory was
// deleted gets an empty one, under the same authority and name.
func (h *Home) Prepare(p topology.Process) error {
	dir := h.Process(p)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	files, err := h.certify(p)
	if err != nil {
		return err
	}
	return replaceJSON(h.Config(p), h.config(p, files))
}

// certify returns the process's certificate, issued now if there is no good one.
func (h *Home) certify(p topology.Process) (pki.Files, error) {
	if h.authority == nil {
		return pki.Files{}, nil
	}
	host, _, err := net.SplitHostPort(p.HTTP)
	if err != nil {
		return pki.Files{}, err
	}
	dir := filepath.Join(h.Process(p), "tls")
	files := pki.Files{CA: h.authority.Bundle(), Cert: filepath.Join(dir, p.Name+".pem"), Key: filepath.Join(dir, p.Name+".key")}
	if serves(files, host) {
		return files, nil
	}
	// Proxied links are dialled by a loopback address whatever the host is.
	return h.authority.Issue(dir, p.Name, host, "127.0.0.1", "localhost")
}

// serves reports whether the certificate is whole, of a trusted authority,
// valid for the host, and has time left.
func serves(f pki.Files, host string) bool {
	bundle, err := os.ReadFile(f.CA)
	if err != nil {
		return false
	}
	raw, err := os.ReadFile(f.Cert)
	if err != nil {
		return false
	}
	if _, err := tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
		return false
	}
	block, _ := pem.Decode(raw)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	_, err = cert.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: time.Now().Add(renewBefore)})
	return err == nil
}

func (h *Home) config(p topology.Process, files pki.Files) config {
	c := config{
		Name: p.Name, Carrier: p.Carrier, Subsystem: p.Subsystem,
		Dir: h.Process(p), Listen: p.Node, HTTP: p.HTTP,
		Topology: h.Layout.Topology(), Secrets: h.Secrets(),
		CA: files.CA, Cert: files.Cert, Key: files.Key, Insecure: h.Plan.Insecure,
		NATS: h.nats(p.Carrier), Etcd: h.etcd(p.Carrier),
		Via: h.via(p), MemoryMiB: memory[p.Subsystem], Procs: procs(),
		Drills: !h.Plan.NoDrills && p.Subsystem != "backbone", // a backbone is other people's code: it has no such points
	}
	if h.links != nil {
		c.DialFrom = callerIP(h.Topology, p)
	}
	return c
}

// nats are the URLs of a carrier's NATS servers.
func (h *Home) nats(carrier string) []string {
	if h.Plan.external() {
		return h.Plan.NATS[carrier]
	}
	scheme := "tls://"
	if h.Plan.Insecure {
		scheme = "nats://"
	}
	var out []string
	for _, b := range h.Topology.Select(carrier, "backbone") {
		out = append(out, scheme+h.dial(b, "nats"))
	}
	return out
}

// etcd are the endpoints of a carrier's etcd.
func (h *Home) etcd(carrier string) []string {
	if h.Plan.external() {
		return h.Plan.Etcd[carrier]
	}
	scheme := "https://"
	if h.Plan.Insecure {
		scheme = "http://"
	}
	var out []string
	for _, b := range h.Topology.Select(carrier, "backbone") {
		out = append(out, scheme+h.dial(b, "etcd"))
	}
	return out
}
