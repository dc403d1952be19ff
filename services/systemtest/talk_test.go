//go:build system

package systemtest

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

var client = &http.Client{Timeout: 10 * time.Second}

// url is where a process's public API listens.
func (w *world) url(process string) string {
	raw, err := os.ReadFile(filepath.Join(w.data, "endpoints.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	var e struct {
		Carriers map[string]map[string][]string `json:"carriers"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		w.t.Fatal(err)
	}
	part := strings.Split(process, "-")
	n, err := strconv.Atoi(part[2])
	if err != nil {
		w.t.Fatal(err)
	}
	return e.Carriers[part[0]][part[1]][n-1]
}

// marks is GET /v1/marks of a process; the zero value when it does not answer.
func (w *world) marks(process string) (m marks) {
	res, err := client.Get(w.url(process) + "/v1/marks")
	if err != nil {
		return m
	}
	defer res.Body.Close()
	if json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&m) != nil {
		return marks{}
	}
	return m
}

type marks struct {
	Process string `json:"process"`
	Shards  []struct {
		Leader string `json:"leader"`
	} `json:"shards"`
}

func (m marks) leader() string {
	if len(m.Shards) == 0 {
		return ""
	}
	return m.Shards[0].Leader
}
