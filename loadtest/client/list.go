package client

// list is a queue of calls that lets one in the middle go. The links live in
// the calls, so that queueing allocates nothing; a call is in one list at most.
type list struct {
	head, tail *Call
	n          int
}

func (q *list) push(c *Call) {
	c.prev, c.nxt = q.tail, nil
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.nxt = c
	}
	q.tail = c
	q.n++
}

func (q *list) remove(c *Call) {
	if c.prev == nil {
		q.head = c.nxt
	} else {
		c.prev.nxt = c.nxt
	}
	if c.nxt == nil {
		q.tail = c.prev
	} else {
		c.nxt.prev = c.prev
	}
	c.prev, c.nxt = nil, nil
	q.n--
}

func (q *list) shift() *Call {
	c := q.head
	q.remove(c)
	return c
}

func (q *list) pop() *Call {
	c := q.tail
	q.remove(c)
	return c
}
