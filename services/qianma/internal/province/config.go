package province

// config is a daemon's configuration file. The file is the contract: what each
// daemon reads is declared in cluster/node and cluster/backbone, and a test
// holds this against both. It is spelt out again so that a command line tool
// does not link the floor it only writes a file for.
type config struct {
	Name      string            `json:"name"`
	Carrier   string            `json:"carrier"`
	Subsystem string            `json:"subsystem"`
	Dir       string            `json:"dir"`
	Listen    string            `json:"listen"`
	HTTP      string            `json:"http"`
	Topology  string            `json:"topology"`
	Secrets   string            `json:"secrets"`
	CA        string            `json:"ca"`
	Cert      string            `json:"cert"`
	Key       string            `json:"key"`
	Insecure  bool              `json:"insecure"`
	NATS      []string          `json:"nats"`
	Etcd      []string          `json:"etcd"`
	DialFrom  string            `json:"dial_from,omitempty"`
	Via       map[string]string `json:"via,omitempty"`
	Drills    bool              `json:"drills,omitempty"`
	MemoryMiB int               `json:"memory_mib"`
	Procs     int               `json:"procs"`
}
