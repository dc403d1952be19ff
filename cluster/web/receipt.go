package web

import (
	"net/http"
	"strconv"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

// Outcome is what became of one row of a request. A row that never became a
// command carries its Problem and no status.
type Outcome struct {
	Status  machine.Status
	Code    string
	Problem *problem.Problem
}

// WriteReceipt answers a write whose every row became a command: rows are
// counted through the receipts in order. explain turns a code that the
// subsystem's rules gave into words; it may return nil.
func WriteReceipt(w http.ResponseWriter, receipts []machine.Receipt, explain func(code string) *problem.Problem) error {
	n := 0
	for i := range receipts {
		n += len(receipts[i].Rows)
	}
	rows := make([]Outcome, 0, n)
	for i := range receipts {
		for _, r := range receipts[i].Rows {
			rows = append(rows, Outcome{Status: r.Status, Code: r.Code})
		}
	}
	return WriteRows(w, receipts, rows, explain)
}

// WriteRows answers a batch: 200, the counts, and each row that was neither
// plainly accepted nor a duplicate.
func WriteRows(w http.ResponseWriter, receipts []machine.Receipt, rows []Outcome, explain func(code string) *problem.Problem) error {
	b := buffers.Get().(*[]byte)
	defer keep(b)
	*b = appendReceipts(append((*b)[:0], '{'), receipts)
	*b = append(appendOutcomes(*b, rows, explain), '}', '\n')
	WriteRaw(w, http.StatusOK, *b)
	return nil
}

// WriteOne answers a write of one row: 200 when it was accepted or is a
// duplicate; else it returns the problem to answer with, the receipt inside.
func WriteOne(w http.ResponseWriter, receipt machine.Receipt, explain func(code string) *problem.Problem) error {
	if len(receipt.Rows) == 1 {
		switch row := receipt.Rows[0]; row.Status {
		case machine.Rejected:
			p := because(row.Code, explain)
			return &refusal{p, p.Status(), receipt}
		case machine.Conflicts:
			p := *because(row.Code, explain)
			p.Message += "; what you sent is kept beside it, and both are shown"
			return &refusal{&p, http.StatusConflict, receipt}
		}
	}
	return WriteReceipt(w, []machine.Receipt{receipt}, explain)
}

// refusal is a problem that carries the receipt of a single row.
type refusal struct {
	problem *problem.Problem
	status  int
	receipt machine.Receipt
}

func (f *refusal) Error() string { return f.problem.Error() }
func (f *refusal) Unwrap() error { return f.problem }

func writeRefusal(w http.ResponseWriter, p *problem.Problem, f *refusal) {
	b := buffers.Get().(*[]byte)
	defer keep(b)
	*b = appendProblem((*b)[:0], p, RequestID(w))
	*b = appendReceipt(append(*b, `,"receipt":`...), &f.receipt)
	*b = append(*b, '}', '\n')
	finishProblem(w, p, f.status, *b)
}

// because finds the words of a code.
func because(code string, explain func(string) *problem.Problem) *problem.Problem {
	if explain != nil {
		if p := explain(code); p != nil {
			return p
		}
	}
	if code == "" {
		code = string(problem.Invalid)
	}
	return problem.New(problem.Code(code), "the row breaks a rule", "look the code up in /openapi.yaml")
}

func appendReceipts(b []byte, receipts []machine.Receipt) []byte {
	switch len(receipts) {
	case 0:
		return appendReceipt(append(b, `"receipt":`...), &machine.Receipt{})
	case 1:
		return appendReceipt(append(b, `"receipt":`...), &receipts[0])
	}
	b = append(b, `"receipts":`...)
	for i := range receipts {
		b = append(b, "[,"[min(i, 1)])
		b = appendReceipt(b, &receipts[i])
	}
	return append(b, ']')
}

func appendReceipt(b []byte, r *machine.Receipt) []byte {
	b = appendField(b, `{"level":`, r.Level.String())
	b = appendField(b, `,"origin":`, r.Origin)
	b = strconv.AppendUint(append(b, `,"first":`...), r.First, 10)
	b = strconv.AppendUint(append(b, `,"last":`...), r.Last, 10)
	b = strconv.AppendBool(append(b, `,"replayed":`...), r.Replayed)
	return append(b, '}')
}

// appendOutcomes writes the counts, and the rows worth a word.
func appendOutcomes(b []byte, rows []Outcome, explain func(string) *problem.Problem) []byte {
	var count [5]int
	for i := range rows {
		count[rows[i].status()]++
	}
	for s := machine.Accepted; s <= machine.Rejected; s++ {
		b = append(append(append(b, `,"`...), s.String()...), `":`...)
		b = strconv.AppendInt(b, int64(count[s]), 10)
	}
	b = append(b, `,"rows":[`...)
	first := true
	for i := range rows {
		s := rows[i].status()
		if s == machine.Duplicate || (s == machine.Accepted && rows[i].Code == "") {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendRow(b, i, s, &rows[i], explain)
	}
	return append(b, ']')
}

func (o *Outcome) status() machine.Status {
	if o.Problem != nil || o.Status < machine.Accepted || o.Status > machine.Rejected {
		return machine.Rejected
	}
	return o.Status
}

func appendRow(b []byte, i int, s machine.Status, o *Outcome, explain func(string) *problem.Problem) []byte {
	p := o.Problem
	if p == nil {
		p = because(o.Code, explain)
	}
	b = strconv.AppendInt(append(b, `{"row":`...), int64(i), 10)
	b = appendField(b, `,"status":`, s.String())
	b = appendField(b, `,"code":`, string(p.Code))
	b = appendField(b, `,"message":`, p.Message)
	b = appendField(b, `,"fix":`, p.Fix)
	return append(b, '}')
}
