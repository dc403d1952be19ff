package web

import (
	"fmt"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"
)

// Goal: a connection whose request waits holds no more than CrowdMiB has room for.
// Method: one request is at work, 500 wait behind it, each on a connection of its
// own; what the process holds is compared with what it held before.
func TestWhatWaitsHoldsNoMoreThanItsShare(t *testing.T) {
	const crowd = 500
	s := newServer(t, Config{Limits: map[Class]Limit{Vital: {Concurrent: 1, Queue: crowd, Wait: time.Hour}}})
	free := make(chan struct{})
	s.HandleClass(Vital, "GET /v1/code", func(http.ResponseWriter, *http.Request) error { <-free; return nil })
	serve(t, s)
	ask := func() {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "GET /v1/code?person=%032d HTTP/1.1\r\nHost: code.example\r\nUser-Agent: phone\r\nAccept: application/json\r\nAccept-Language: zh-CN\r\n\r\n", crowd)
	}
	ask()
	until(t, func() bool { taken, _ := s.gates[Vital].full(); return taken == 1 })
	before := holding()
	for range crowd {
		ask()
	}
	until(t, func() bool { _, waiting := s.gates[Vital].full(); return waiting == crowd })
	each := (holding() - before) / crowd
	t.Logf("%d bytes a connection", each)
	if each > perConnection {
		t.Errorf("each of %d that wait holds %d bytes, and has room for %d", crowd, each, perConnection)
	}
	close(free)
	until(t, func() bool { taken, waiting := s.gates[Vital].full(); return taken+waiting == 0 })
}

// holding is what the process holds: its heap as it is after a collection, and its stacks.
func holding() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// Goal: as many connections as CrowdMiB is for are what a server takes by itself.
func TestAServerTakesTheCrowdThereIsRoomFor(t *testing.T) {
	s := newServer(t, Config{})
	if n := cap(s.lis.slots); n*perConnection>>20 != CrowdMiB {
		t.Errorf("%d connections, room for %d MiB", n, CrowdMiB)
	}
}
