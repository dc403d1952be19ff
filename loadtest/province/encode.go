package province

import (
	"time"

	"qianma/cluster/fact"
	"qianma/loadtest/drive"
	"qianma/loadtest/population"
	"qianma/nucleic/nucleicpb"
)

// Everything the load sends carries these, so that it can be told from what
// people sent.
const (
	site     = "520100-load"
	lab      = "lab-load"
	operator = "qianma-load"
)

const (
	ndjsonType = "application/x-ndjson"
	binaryType = "application/x-qianma-facts"
)

func appendTime(dst []byte, ms int64) []byte {
	return time.UnixMilli(ms).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
}

func poolName(size uint8) string {
	return nucleicpb.Pool(size).String()
}

// appendSample writes a row of /v1/registrations, as a booth that read an
// identity card sends it.
func (t *Target) appendSample(dst []byte, s *drive.Sample) []byte {
	dst = population.AppendTube(append(dst, `{"tube":"`...), s.Tube)
	dst = append(append(dst, `","pool":"`...), poolName(s.Pool)...)
	dst = append(dst, `","site":"`+site+`","document":{"kind":"resident","number":"`...)
	dst = t.cfg.People.AppendNumber(dst, s.Person)
	dst = appendTime(append(dst, `"},"sampled_at":"`...), s.Sampled)
	return append(dst, `","channel":"id_card","operator":"`+operator+`"}`...)
}

// appendResult writes a row of /v1/results.
func appendResult(dst []byte, r *drive.Result) []byte {
	dst = population.AppendTube(append(dst, `{"tube":"`...), r.Tube)
	dst = append(dst, `","lab":"`+lab+`","revision":1,"outcome":"`...)
	dst = append(dst, nucleicpb.Outcome(r.Outcome).String()...)
	dst = appendTime(append(dst, `","tested_at":"`...), r.At)
	dst = appendTime(append(dst, `","reported_at":"`...), r.At)
	return append(dst, `","method":"pcr","operator":"`+operator+`"}`...)
}

func (t *Target) writeSamples(op *drive.Op) {
	if t.cfg.Format != Binary {
		op.Call.Type = ndjsonType
		for i := range op.Samples {
			op.Body = append(t.appendSample(op.Body, &op.Samples[i]), '\n')
		}
		return
	}
	op.Call.Type = binaryType
	var tube [16]byte
	for i := range op.Samples {
		s := &op.Samples[i]
		person := t.person(s.Person)
		m := nucleicpb.Registered{
			Tube:      population.AppendTube(tube[:0], s.Tube),
			Person:    person[:],
			Pool:      nucleicpb.Pool(s.Pool),
			Site:      []byte(site),
			SampledAt: s.Sampled,
			Channel:   nucleicpb.ChannelIDCard,
			Operator:  []byte(operator),
		}
		t.scratch = m.AppendFact(t.scratch[:0])
		op.Body = fact.AppendFact(op.Body, t.scratch)
	}
}

func (t *Target) writeResults(op *drive.Op) {
	if t.cfg.Format != Binary {
		op.Call.Type = ndjsonType
		for i := range op.Results {
			op.Body = append(appendResult(op.Body, &op.Results[i]), '\n')
		}
		return
	}
	op.Call.Type = binaryType
	var tube [16]byte
	for i := range op.Results {
		r := &op.Results[i]
		m := nucleicpb.Resulted{
			Tube:       population.AppendTube(tube[:0], r.Tube),
			Lab:        []byte(lab),
			Revision:   1,
			Outcome:    nucleicpb.Outcome(r.Outcome),
			TestedAt:   r.At,
			ReportedAt: r.At,
			Method:     []byte("pcr"),
			Operator:   []byte(operator),
		}
		t.scratch = m.AppendFact(t.scratch[:0])
		op.Body = fact.AppendFact(op.Body, t.scratch)
	}
}
