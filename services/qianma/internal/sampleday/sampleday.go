// Package sampleday invents one believable testing day of a province and
// writes it as the CSV files a booth and a lab would export.
//
// Everything follows from (people, seed, day): the same three give the same
// bytes on every machine. Nobody in it exists; the document numbers are valid
// by their check digits, and a stated few are wrong on purpose.
package sampleday

import (
	"bufio"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/encoding/simplifiedchinese"
)

// Plan is what to invent.
type Plan struct {
	People  int
	Seed    uint64
	Day     time.Time // any moment of the day; times of the files are UTC+8
	GB18030 bool      // as many lab systems export, instead of UTF-8 with a byte order mark
}

// MaxPeople bounds a plan: a file of this size still opens in an editor.
const MaxPeople = 10_000_000

// Summary counts what was written.
type Summary struct {
	People, Households, Registrations, Tubes, Results, Doses int
	// BadCheckDigits is how many documents carry a wrong check digit: the
	// system must flag them and still take the swab.
	BadCheckDigits int
	// Missing is how many tubes have no result, Stray how many results belong
	// to a tube nobody registered: both belong on a worklist. A stray tube
	// may miss its result too, so Results + Missing = Tubes + Stray.
	Missing, Stray int
	Positive       int // tubes
}

// zone is China Standard Time, which has no daylight saving.
var zone = time.FixedZone("UTC+8", 8*3600)

// Header names as Chinese lab systems print them; `qianma upload` reads these
// and their English twins.
var (
	registrationHeader = []string{"试管编号", "混采方式", "采样点", "证件类型", "证件号码", "签发国家", "姓名", "采样时间", "登记方式", "采样员", "设备"}
	resultHeader       = []string{"试管编号", "检测机构", "版本", "结果", "接收时间", "检测时间", "报告时间", "方法", "审核人"}
	doseHeader         = []string{"证件类型", "证件号码", "签发国家", "姓名", "疫苗", "批号", "剂次", "接种点", "接种日期", "操作员"}
)

// Write invents the day into dir: registrations.csv, results.csv, doses.csv.
func Write(dir string, plan Plan) (Summary, error) {
	if plan.People < 1 || plan.People > MaxPeople {
		return Summary{}, fmt.Errorf("people: %d is not between 1 and %d", plan.People, MaxPeople)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Summary{}, err
	}
	w := &writer{
		plan:    plan,
		rng:     rand.New(rand.NewPCG(plan.Seed, 0x71616e6d61)),
		morning: morning(plan.Day),
		taken:   make(map[string]struct{}, plan.People),
	}
	var err error
	open := func(name string, header []string) *table {
		t, e := newTable(filepath.Join(dir, name), header, plan.GB18030)
		err = errors.Join(err, e)
		return t
	}
	w.registrations = open("registrations.csv", registrationHeader)
	w.results = open("results.csv", resultHeader)
	w.doses = open("doses.csv", doseHeader)
	if err != nil {
		return Summary{}, err
	}
	w.run()
	return w.sum, errors.Join(w.registrations.close(), w.results.close(), w.doses.close())
}

func morning(day time.Time) time.Time {
	y, m, d := day.In(zone).Date()
	return time.Date(y, m, d, 7, 0, 0, 0, zone)
}

type writer struct {
	plan                          Plan
	rng                           *rand.Rand
	morning                       time.Time
	registrations, results, doses *table
	sum                           Summary
	tubes                         int
	taken                         map[string]struct{} // document numbers
}

// run walks the people in households, household by household into the open
// tube of their site: the way a neighbourhood queues.
func (w *writer) run() {
	for w.sum.People < w.plan.People {
		site := w.site()
		queue := w.queue(min(400+w.rng.IntN(400), w.plan.People-w.sum.People))
		for len(queue) > 0 {
			queue = w.fill(site, queue)
		}
	}
	for range w.plan.People/20_000 + 1 {
		w.stray()
	}
}

type site struct {
	id, division string
	booths       int
}

func (w *writer) site() site {
	town := towns[w.rng.IntN(len(towns))]
	return site{id: fmt.Sprintf("%s-%02d", town, 1+w.rng.IntN(12)), division: town, booths: 1 + w.rng.IntN(6)}
}

// queue lines up n people of whole households.
func (w *writer) queue(n int) [][]person {
	var homes [][]person
	for n > 0 {
		size := min(n, pick(w.rng, []int{1, 2, 3, 4, 5, 6}, []int{18, 26, 28, 16, 8, 4}))
		home := make([]person, size)
		surname := surnames[w.rng.IntN(len(surnames))]
		for i := range home {
			home[i] = w.newcomer(surname, i)
		}
		n -= size
		w.sum.People += size
		w.sum.Households++
		homes = append(homes, home)
	}
	return homes
}

// fill takes people from the queue into one tube and returns who still waits.
func (w *writer) fill(s site, queue [][]person) [][]person {
	pool := pick(w.rng, []string{"20", "10", "5", "1", "household"}, []int{55, 30, 4, 5, 6})
	capacity, err := strconv.Atoi(pool)
	if err != nil {
		capacity = len(queue[0])
	}
	w.tubes++
	tube := fmt.Sprintf("%s%02d%07d", s.division[:6], w.plan.Seed%100, w.tubes)
	booth := 1 + w.rng.IntN(s.booths)
	at := w.morning.Add(time.Duration(w.rng.IntN(4*3600)) * time.Second)
	for range capacity {
		if len(queue) == 0 {
			break
		}
		at = at.Add(time.Duration(8+w.rng.IntN(20)) * time.Second)
		w.register(tube, pool, s, booth, at, queue[0][0])
		if queue[0] = queue[0][1:]; len(queue[0]) == 0 {
			queue = queue[1:]
		}
	}
	w.sum.Tubes++
	w.result(tube, at)
	return queue
}

func (w *writer) register(tube, pool string, s site, booth int, at time.Time, p person) {
	channel := pick(w.rng, []string{"扫码", "身份证", "手工", "离线"}, []int{70, 22, 6, 2})
	w.registrations.row(tube, pool, s.id, p.kind, p.number, p.country, p.name, stamp(at), channel,
		fmt.Sprintf("op-%s-%d", s.division[:6], booth), fmt.Sprintf("dev-%s-%d", s.id, booth))
	w.sum.Registrations++
	if p.kind == resident && p.number[17] != checkDigit(p.number[:17]) {
		w.sum.BadCheckDigits++
	}
	w.inoculate(s, p)
}

func (w *writer) result(tube string, sampled time.Time) {
	if w.rng.IntN(500) == 0 {
		w.sum.Missing++
		return
	}
	outcome := pick(w.rng, []string{"阴性", "阳性", "可疑", "无效"}, []int{9980, 8, 6, 6})
	if outcome == "阳性" {
		w.sum.Positive++
	}
	received := sampled.Add(time.Duration(40+w.rng.IntN(90)) * time.Minute)
	tested := received.Add(time.Duration(100+w.rng.IntN(120)) * time.Minute)
	reported := tested.Add(time.Duration(5+w.rng.IntN(40)) * time.Minute)
	w.results.row(tube, "lab-"+tube[:4], "1", outcome, stamp(received), stamp(tested), stamp(reported), "RT-PCR",
		"rev-"+strconv.Itoa(1+w.rng.IntN(30)))
	w.sum.Results++
}

// stray is a result whose tube was never registered: a swab taken while the
// desk forgot the person, the first of the seven gates where results get lost.
func (w *writer) stray() {
	w.tubes++
	w.result(fmt.Sprintf("%s%02d%07d", towns[0][:6], w.plan.Seed%100, w.tubes), w.morning)
	w.sum.Stray++
}

func (w *writer) inoculate(s site, p person) {
	product := pick(w.rng, []string{"BBIBP-CorV", "CoronaVac", "ZF2001", "Ad5-nCoV"}, []int{45, 38, 14, 3})
	doses := pick(w.rng, []int{0, 1, 2, 3}, []int{8, 5, 30, 57})
	day := w.morning.AddDate(0, -20, -w.rng.IntN(60))
	for n := 1; n <= doses; n++ {
		w.doses.row(p.kind, p.number, p.country, p.name, product, fmt.Sprintf("B%06d", w.rng.IntN(4000)),
			strconv.Itoa(n), "vac-"+s.division[:6], day.Format(time.DateOnly), "nurse-"+strconv.Itoa(1+w.rng.IntN(90)))
		day = day.AddDate(0, 0, 25+w.rng.IntN(150))
		w.sum.Doses++
	}
}

func stamp(t time.Time) string { return t.Format("2006-01-02 15:04:05") }

// pick draws one of the values by their weights.
func pick[T any](rng *rand.Rand, values []T, weights []int) T {
	total := 0
	for _, w := range weights {
		total += w
	}
	n := rng.IntN(total)
	for i, w := range weights {
		if n -= w; n < 0 {
			return values[i]
		}
	}
	return values[len(values)-1]
}

// table is one CSV file, complete on disk once close returns nil.
type table struct {
	file *os.File
	buf  *bufio.Writer
	enc  io.Writer
	csv  *csv.Writer
}

func newTable(path string, header []string, gb18030 bool) (*table, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	t := &table{file: f, buf: bufio.NewWriterSize(f, 1<<16)}
	t.enc = t.buf
	if gb18030 {
		t.enc = simplifiedchinese.GB18030.NewEncoder().Writer(t.buf)
	} else if _, err := t.buf.WriteString("\ufeff"); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t.csv = csv.NewWriter(t.enc)
	return t, t.csv.Write(header)
}

// row writes one record; the csv writer remembers a failure, close tells it.
func (t *table) row(cells ...string) { t.csv.Write(cells) }

func (t *table) close() error {
	t.csv.Flush()
	err := t.csv.Error()
	if c, ok := t.enc.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	return errors.Join(err, t.buf.Flush(), t.file.Sync(), t.file.Close())
}

// divisionTable is Guizhou's division codes (GB/T 2260, National Bureau of
// Statistics, 2023-06-30).
//
//go:embed divisions.csv
var divisionTable string

var counties, towns = divisions()

func divisions() (counties, towns []string) {
	for line := range strings.Lines(divisionTable) {
		code, _, _ := strings.Cut(line, ",")
		switch len(code) {
		case 6:
			counties = append(counties, code)
		case 9:
			towns = append(towns, code)
		}
	}
	return counties, towns
}
