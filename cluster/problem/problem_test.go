package problem

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// codes are every code of the floor with what it promises. They never change.
var codes = map[Code]struct {
	status int
	side   Side
}{
	Malformed: {400, Client}, UnknownField: {400, Client}, TooLarge: {413, Client}, Invalid: {422, Client},
	NotFound: {404, Client}, KeyReused: {409, Client}, Conflict: {409, Client}, Unauthenticated: {401, Client},
	Overloaded: {429, Server}, Unavailable: {503, Server}, Unknown: {504, Server}, Unsupported: {501, Server}, Internal: {500, Server},
	"tube_full": {422, Client}, // a subsystem's own
}

func TestCodesKeepTheirMeaning(t *testing.T) {
	for code, want := range codes {
		p := New(code, "m", "f")
		if p.Status() != want.status || p.Side() != want.side {
			t.Errorf("%s: %d on the %s side, want %d, %s", code, p.Status(), p.Side(), want.status, want.side)
		}
		if http.StatusText(p.Status()) == "" {
			t.Errorf("%s: %d is no status", code, p.Status())
		}
	}
	if len(statuses) != len(codes)-1 {
		t.Errorf("%d codes have a status, %d are told of here", len(statuses), len(codes)-1)
	}
}

func TestTheWholeChainIsForTheLog(t *testing.T) {
	p := Wrap(io.ErrUnexpectedEOF, Unavailable, "the disk is gone", "wait")
	p.Op = "nucleic.Register"
	if got := p.Error(); got != "nucleic.Register: unavailable: the disk is gone (unexpected EOF)" {
		t.Error(got)
	}
	if !errors.Is(p, io.ErrUnexpectedEOF) {
		t.Error("the cause is lost")
	}
	if got := (&Problem{Code: NotFound}).Error(); got != "not_found" {
		t.Error(got)
	}
}

func TestAfterIsACopy(t *testing.T) {
	p := New(Overloaded, "m", "f")
	q := p.After(time.Second)
	if p.RetryAfter != 0 || q.RetryAfter != time.Second || q.Code != Overloaded || q.Message != "m" || q.Fix != "f" {
		t.Errorf("%+v %+v", p, q)
	}
}

func TestFrom(t *testing.T) {
	if From(nil) != nil {
		t.Error("no error became a problem")
	}
	p := New("tube_full", "m", "f")
	if got := From(fmt.Errorf("a: %w", errors.Join(io.EOF, p))); got != p {
		t.Errorf("%v", got)
	}
	got := From(io.EOF)
	if got.Code != Internal || !errors.Is(got, io.EOF) || got.Message == "" || got.Fix == "" || strings.Contains(got.Message, "EOF") {
		t.Errorf("%+v", got)
	}
}

func TestIs(t *testing.T) {
	err := fmt.Errorf("a: %w", New(NotFound, "m", "f"))
	if !Is(err, NotFound) || Is(err, Conflict) || Is(io.EOF, NotFound) || Is(nil, NotFound) {
		t.Error("Is compares something else than codes")
	}
	if !errors.Is(err, &Problem{Code: NotFound}) || errors.Is(err, &Problem{Code: Conflict}) {
		t.Error("errors.Is compares something else than codes")
	}
}
