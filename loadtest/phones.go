package loadtest

import (
	"bufio"
	"cmp"
	"fmt"

	"github.com/alecthomas/kong"

	"qianma/cluster/identity"
	"qianma/loadtest/population"
	"qianma/loadtest/profiles"
	"qianma/loadtest/province"
)

// PhonesCommand is `qianma load phones`: what the display profile would ask,
// for a generator that is not ours. It needs the person key, because a code is
// asked for by its person's pseudonym.
type PhonesCommand struct {
	Count     int      `help:"How many requests." default:"20000"`
	People    uint32   `help:"Size of the population." default:"1000000"`
	Seed      uint64   `help:"Same seed, same people." default:"1"`
	Draw      uint64   `help:"Same draw, same order, as a run with that --draw asks." default:"1"`
	Zipf      float64  `help:"Exponent of who refreshes." default:"1.1"`
	Cold      float64  `help:"Share drawn from everybody alike." default:"0.1"`
	Carriers  []string `help:"Carriers to use; empty: all."`
	Data      string   `help:"Data directory of the province." default:"./data"`
	Endpoints string   `help:"File with the endpoints of a province elsewhere." aliases:"endpoint"`
}

// Validate is called by kong.
func (c *PhonesCommand) Validate() error {
	var f faults
	f.want(c.Count >= 0, "count", c.Count, notBelow0)
	f.want(c.People >= 1 && c.People <= profiles.MostPeople, "people", c.People, fmt.Sprintf("from 1 to %d", profiles.MostPeople))
	f.want(c.Zipf > 0 && notBelow(c.Zipf, 0), "zipf", c.Zipf, above0)
	f.want(within(c.Cold, 0, 1), "cold", c.Cold, aShare)
	return f.err()
}

// Run prints a URL on each line; a person is asked for at one node.
func (c *PhonesCommand) Run(k *kong.Context) (err error) {
	defer ending(k.Stderr, &err)
	from := cmp.Or(c.Endpoints, c.Data)
	e, err := province.LoadEndpoints(from)
	if err != nil {
		return err
	}
	carriers, err := e.Pick(c.Carriers)
	if err != nil {
		return err
	}
	hasher, err := e.Hasher()
	if err != nil {
		return err
	}
	var nodes []string
	for _, carrier := range carriers {
		nodes = append(nodes, e.Carriers[carrier]["display"]...)
	}
	if len(nodes) == 0 {
		return fmt.Errorf("%s names no display node", from)
	}
	people := population.New(c.Seed, max(1, c.People))
	draw := profiles.Draw(people, c.Draw, 0, c.Zipf, c.Cold)
	out := bufio.NewWriter(k.Stdout)
	for range c.Count {
		person := draw.Next()
		document := identity.Document{Kind: identity.Resident, Number: string(people.AppendNumber(nil, person))}
		node := nodes[population.Mix(0, uint64(person))%uint64(len(nodes))]
		fmt.Fprintf(out, "%s%s\n", node, hasher.Person(document).Append([]byte(province.CodePath)))
	}
	return out.Flush()
}
