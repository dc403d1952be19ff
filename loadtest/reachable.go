package loadtest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"qianma/loadtest/internal/crash"
	"qianma/loadtest/province"
)

// knockMost is how long an endpoint may take to let somebody in. A busy one is no
// slower: the kernel answers for it.
const knockMost = 3 * time.Second

// reachable says of each carrier that is to be loaded whether anybody is there, in
// each of the subsystems that the load is for. A run against nobody would be a row
// of timeouts, with figures that are the generator's patience.
func reachable(e *province.Endpoints, carriers, subsystems []string) error {
	picked, err := e.Pick(carriers)
	if err != nil {
		return err
	}
	var absent []error
	for _, c := range picked {
		for _, s := range subsystems {
			if why := knock(e.Carriers[c][s]); why != nil {
				absent = append(absent, fmt.Errorf("no %s endpoint of carrier %s answers (%w); is the province up? `qianma status`, `qianma up`", s, c, why))
			}
		}
	}
	return errors.Join(absent...)
}

// knock is nil as soon as one of the endpoints lets us in, else why one of them did
// not.
func knock(bases []string) (why error) {
	heard := make(chan error, len(bases)) // has room for those whom nobody waits for any more
	for _, base := range bases {
		go func() {
			defer crash.Guard()
			heard <- dial(base)
		}()
	}
	why = errors.New("it has none")
	for range bases {
		if why = <-heard; why == nil {
			return nil
		}
	}
	return why
}

func dial(base string) error {
	u, err := url.Parse(base)
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout("tcp", u.Host, knockMost)
	if err != nil {
		return err
	}
	return conn.Close()
}
