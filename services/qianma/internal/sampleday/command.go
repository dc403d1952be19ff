package sampleday

import (
	"fmt"
	"time"
)

// Command is `qianma sample-day`.
type Command struct {
	People   int    `help:"People to invent, at most 10,000,000." default:"20000"`
	Seed     uint64 `help:"The same seed, people and day give the same files." default:"1"`
	Out      string `help:"Directory to write to." required:"" type:"path" placeholder:"DIR"`
	Day      string `help:"The day, as 2022-01-10 (UTC+8); default: yesterday." placeholder:"DATE"`
	Encoding string `help:"utf-8 or gb18030, as many labs export." enum:"utf-8,gb18030" default:"utf-8"`
}

// Run writes the files and says what is in them.
func (c *Command) Run() error {
	day := time.Now().In(zone).AddDate(0, 0, -1)
	if c.Day != "" {
		var err error
		if day, err = time.ParseInLocation(time.DateOnly, c.Day, zone); err != nil {
			return fmt.Errorf("--day %s: write it as 2022-01-10", c.Day)
		}
	}
	s, err := Write(c.Out, Plan{People: c.People, Seed: c.Seed, Day: day, GB18030: c.Encoding == "gb18030"})
	if err != nil {
		return err
	}
	fmt.Printf(`%s: %d people in %d households, sampled on %s
  registrations.csv  %d rows in %d tubes, %d documents with a wrong check digit
  results.csv        %d rows: %d tubes positive, %d tubes without a result, %d results without a registration
  doses.csv          %d rows
next:  qianma upload registrations %s/registrations.csv
`, c.Out, s.People, s.Households, day.Format(time.DateOnly), s.Registrations, s.Tubes, s.BadCheckDigits,
		s.Results, s.Positive, s.Missing, s.Stray, s.Doses, c.Out)
	return nil
}
