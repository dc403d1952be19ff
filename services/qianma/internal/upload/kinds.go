package upload

import (
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Kind is what a file holds.
type Kind struct {
	Name      string // "registrations"
	Subsystem string // whose HTTP API takes it
	Path      string // of the batch endpoint
	columns   []column
}

// column is one field of a row: its JSON name, the headers it is known by, and
// how a cell becomes a JSON value. Empty optional cells are left out.
type column struct {
	field    string
	headers  []string
	required bool
	value    func(cell string) (any, error)
}

// Kinds are the files that can be uploaded, by name.
var Kinds = map[string]Kind{
	"registrations": {"registrations", "nucleic", "/v1/registrations/batch", []column{
		{"tube", []string{"tube", "试管编号", "试管码"}, true, text},
		{"pool", []string{"pool", "混采方式", "混采人数"}, true, pool},
		{"site", []string{"site", "采样点"}, true, text},
		{"document.kind", []string{"document_kind", "kind", "证件类型"}, false, choice(documentKinds)},
		{"document.number", []string{"document_number", "number", "证件号码"}, false, text},
		{"document.country", []string{"document_country", "country", "签发国家"}, false, text},
		{"person", []string{"person", "人员编码"}, false, text},
		{"", []string{"name", "姓名"}, false, nil}, // stays with the uploader: the system needs no name
		{"sampled_at", []string{"sampled_at", "采样时间"}, true, moment},
		{"channel", []string{"channel", "登记方式"}, false, choice(channels)},
		{"operator", []string{"operator", "采样员"}, false, text},
		{"device", []string{"device", "设备"}, false, text},
	}},
	"results": {"results", "nucleic", "/v1/results/batch", []column{
		{"tube", []string{"tube", "试管编号", "试管码"}, true, text},
		{"lab", []string{"lab", "检测机构"}, true, text},
		{"revision", []string{"revision", "版本"}, false, number},
		{"outcome", []string{"outcome", "结果"}, true, choice(outcomes)},
		{"received_at", []string{"received_at", "接收时间"}, false, moment},
		{"tested_at", []string{"tested_at", "检测时间"}, true, moment},
		{"reported_at", []string{"reported_at", "报告时间"}, true, moment},
		{"method", []string{"method", "方法"}, false, text},
		{"operator", []string{"operator", "审核人"}, false, text},
	}},
	"doses": {"doses", "vaccine", "/v1/doses/batch", []column{
		{"document.kind", []string{"document_kind", "kind", "证件类型"}, false, choice(documentKinds)},
		{"document.number", []string{"document_number", "number", "证件号码"}, false, text},
		{"document.country", []string{"document_country", "country", "签发国家"}, false, text},
		{"person", []string{"person", "人员编码"}, false, text},
		{"", []string{"name", "姓名"}, false, nil},
		{"product", []string{"product", "疫苗"}, true, text},
		{"batch", []string{"batch", "批号"}, true, text},
		{"dose", []string{"dose", "剂次"}, true, number},
		{"site", []string{"site", "接种点"}, true, text},
		{"day", []string{"day", "接种日期"}, true, text},
		{"operator", []string{"operator", "操作员"}, false, text},
	}},
}

// KindNames lists the kinds in order.
func KindNames() []string {
	var names []string
	for name := range Kinds {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

var documentKinds = map[string]string{
	"居民身份证":       "resident",
	"港澳居民来往内地通行证": "hk_macau_permit",
	"台湾居民来往大陆通行证": "taiwan_permit",
	"港澳台居民居住证":    "residence_permit",
	"外国人永久居留身份证":  "foreign_permanent",
	"护照":          "passport",
	"出生医学证明":      "birth_certificate",
}

var channels = map[string]string{"扫码": "code", "身份证": "id_card", "手工": "manual", "离线": "offline"}

var outcomes = map[string]string{
	"阴性": "negative", "阳性": "positive", "可疑": "inconclusive", "无效": "invalid",
}

func text(cell string) (any, error) { return cell, nil }

func number(cell string) (any, error) {
	n, err := strconv.Atoi(cell)
	if err != nil {
		return nil, fmt.Errorf("%q is not a whole number", cell)
	}
	return n, nil
}

// pool reads "10", "10混1", "单采" and "household"; the server judges the size.
func pool(cell string) (any, error) {
	switch cell {
	case "单采":
		return "1", nil
	case "家庭", "一户一管":
		return "household", nil
	}
	before, _, _ := strings.Cut(cell, "混")
	return strings.TrimSpace(before), nil
}

// choice translates a Chinese term; a term that is not in the table goes on as
// it is, and the server says what it thinks of it.
func choice(terms map[string]string) func(string) (any, error) {
	return func(cell string) (any, error) {
		if t, ok := terms[cell]; ok {
			return t, nil
		}
		return cell, nil
	}
}

var layouts = []string{time.RFC3339, "2006-01-02 15:04:05", "2006/01/02 15:04:05", "2006-01-02 15:04", "2006/1/2 15:04:05", "2006/1/2 15:04"}

// zone is China Standard Time: a lab's export names no zone.
var zone = time.FixedZone("UTC+8", 8*3600)

func moment(cell string) (any, error) {
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, cell, zone); err == nil {
			return t.Format(time.RFC3339), nil
		}
	}
	return nil, fmt.Errorf("%q is not a time; write 2022-01-10 08:30:00", cell)
}

// header places the file's columns: for each cell the column it is, or none.
func (k Kind) header(cells []string) ([]*column, error) {
	places := make([]*column, len(cells))
	found := map[string]bool{}
	for i, cell := range cells {
		c := k.column(strings.TrimSpace(cell))
		if c == nil {
			return nil, fmt.Errorf("the column %q is not one that %s has", clip(cell), k.Name)
		}
		places[i] = c
		found[c.field] = true
	}
	for _, c := range k.columns {
		if c.required && !found[c.field] {
			return nil, fmt.Errorf("the column %q (%s) is missing", c.headers[0], c.headers[1])
		}
	}
	return places, nil
}

func (k Kind) column(header string) *column {
	for i := range k.columns {
		for _, h := range k.columns[i].headers {
			if strings.EqualFold(h, header) {
				return &k.columns[i]
			}
		}
	}
	return nil
}

// encode turns the cells of one record into the JSON row the API reads.
func encode(places []*column, cells []string) ([]byte, *Reject) {
	if len(cells) != len(places) {
		return nil, &Reject{Code: "malformed", Message: fmt.Sprintf("the row has %d cells, the header %d", len(cells), len(places)), Fix: "export the file again, or mend the row"}
	}
	row := map[string]any{}
	for i, c := range places {
		cell := strings.TrimSpace(cells[i])
		if c.value == nil || (cell == "" && !c.required) {
			continue
		}
		if cell == "" {
			return nil, &Reject{Code: "invalid", Message: "the cell " + c.headers[0] + " is empty", Fix: "fill it in and upload the row again"}
		}
		v, err := c.value(cell)
		if err != nil {
			return nil, &Reject{Code: "invalid", Message: c.headers[0] + ": " + err.Error(), Fix: "mend the cell and upload the row again"}
		}
		put(row, c.field, v)
	}
	raw, err := json.Marshal(row)
	if err != nil {
		return nil, &Reject{Code: "malformed", Message: "the row cannot be written as JSON", Fix: "check its characters"}
	}
	return raw, nil
}

// put sets "a" or "a.b".
func put(row map[string]any, field string, v any) {
	outer, inner, nested := strings.Cut(field, ".")
	if !nested {
		row[field] = v
		return
	}
	m, ok := row[outer].(map[string]any)
	if !ok {
		m = map[string]any{}
		row[outer] = m
	}
	m[inner] = v
}

func clip(s string) string {
	if r := []rune(s); len(r) > 32 {
		return string(r[:32]) + "…"
	}
	return s
}
