package source

import "sync/atomic"

// budget lets hedges be a tenth of the questions, and no more: when every
// store is slow because all are busy, asking twice would make it worse. What
// was saved in quiet times covers the moment in which a store stops answering,
// until its breaker opens.
type budget struct{ credit atomic.Int64 }

const (
	hedgePrice = 10 // questions that earn one hedge
	hedgeSaved = 64 // hedges that can be saved up
)

func newBudget() *budget {
	b := new(budget)
	b.credit.Store(hedgePrice * hedgeSaved)
	return b
}

// earn counts a question.
func (b *budget) earn() {
	if b.credit.Add(1) > hedgePrice*hedgeSaved {
		b.credit.Store(hedgePrice * hedgeSaved)
	}
}

// spend takes a hedge, if there is one.
func (b *budget) spend() bool {
	if b.credit.Add(-hedgePrice) >= 0 {
		return true
	}
	b.credit.Add(hedgePrice)
	return false
}
