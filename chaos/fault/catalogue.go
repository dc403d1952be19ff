package fault

import (
	"fmt"

	"qianma/chaos/link"
)

// comeback bounds the wait for a process that was down to serve again.
const comeback = Duration(90e9)

func init() {
	enter(Fault{Name: "kill", Says: "processes end as in a crash (kill -9); with for they stay down that long", plan: kill})
	enter(Fault{Name: "pause", Says: "processes hang (SIGSTOP)", plan: pause})
	enter(Fault{Name: "destroy", Says: "processes end and all they had on disk is gone", plan: destroy})
	enter(Fault{Name: "restart", Says: "processes are asked to leave and started again, one after another", plan: restart})
	enter(Fault{Name: "delete-broker-store", Says: "a broker loses everything it stored", plan: deleteBrokerStore})
	enter(Fault{Name: "flip-bit", Says: "one bit of a process's files on disk is wrong; it is repaired from its peers", plan: flipBit})
	enter(Fault{Name: "rotate-authority", Says: "the authority and every certificate are replaced while all run", plan: rotateAuthority})
	enter(Fault{Name: "expire-certificate", Says: "the certificate of a process is over: nobody new speaks with it", plan: expireCertificate})
	enter(Fault{Name: "poison", Says: "bytes that are no facts come down the feed", plan: poison})
	enter(Fault{Name: "surge", Says: "many times the usual traffic", plan: surge})
	onLinks("cut", "no byte passes; connections stay open (a line that is cut)", func(*link.Rule, Spec) {})
	onLinks("delay", "every byte is late", func(r *link.Rule, s Spec) { r.Cut, r.Delay, r.Jitter = false, s.Delay.D(), s.Jitter.D() })
	onLinks("narrow", "few bytes a second pass", func(r *link.Rule, s Spec) { r.Cut, r.BytesRate = false, s.Bytes })
	onLinks("drop", "a share of new connections is lost", func(r *link.Rule, s Spec) { r.Cut, r.Loss = false, s.Share })
	onLinks("refuse", "new connections are refused and open ones are reset", func(r *link.Rule, s Spec) { r.Cut, r.Refuse, r.Reset = false, true, true })
	onLinks("reset", "every open connection is reset at once (a reconnect storm)", func(r *link.Rule, s Spec) { r.Cut, r.Reset = false, true })
	enter(Fault{Name: "flap", Says: "links refuse and serve in turns, so that breakers open and close", Needs: Links, plan: flap})
	enter(Fault{Name: "ring", Says: "three nodes of a cluster that each see another majority", Needs: Links, plan: ring})
}

// down keeps each target down and returns it whole.
func (p *Plan) down(t Targets) {
	for _, name := range t.Names() {
		p.undo(Action{Do: "release", On: name}, Action{Do: "resume", On: name}, Action{Do: "start", On: name})
		p.verify(Action{Do: "unheld", On: name})
	}
	for _, name := range t.Names() {
		p.verify(Action{Do: "ready", On: name, For: comeback})
	}
	p.Down = t.Names()
}

func kill(p *Plan, s Spec, t Targets) error {
	if err := t.needProcesses(); err != nil {
		return err
	}
	if s.For > 0 {
		for _, name := range t.Names() {
			p.inject(Action{Do: "hold", On: name, For: p.lease()})
		}
	}
	for _, name := range t.Names() {
		p.inject(Action{Do: "kill", On: name})
	}
	p.down(t)
	return nil
}

func pause(p *Plan, s Spec, t Targets) error {
	if s.For == 0 {
		return fmt.Errorf("a pause needs for: how long it lasts")
	}
	for _, name := range t.Names() {
		p.inject(Action{Do: "pause", On: name})
	}
	p.down(t)
	return t.needProcesses()
}

// destroy holds first, so that nothing is started on what is half deleted. The
// directory as a whole stays away until the process is started again.
func destroy(p *Plan, s Spec, t Targets) error {
	for _, name := range t.Names() {
		p.inject(Action{Do: "hold", On: name, For: p.lease()}, Action{Do: "kill", On: name})
	}
	for _, name := range t.Names() {
		p.inject(Action{Do: "wipe", On: name})
	}
	p.down(t)
	return t.needProcesses()
}

func restart(p *Plan, _ Spec, t Targets) error {
	for _, name := range t.Names() {
		p.inject(Action{Do: "restart", On: name}, Action{Do: "ready", On: name, For: comeback})
	}
	p.down(t)
	p.Down = nil
	if len(t.Processes) > 0 {
		p.Down = t.Names()[:1] // one at a time
	}
	return t.needProcesses()
}

func deleteBrokerStore(p *Plan, _ Spec, t Targets) error {
	for _, x := range t.Processes {
		if x.Subsystem != "backbone" {
			return fmt.Errorf("%s keeps no broker: name a backbone", x.Name)
		}
		p.inject(Action{Do: "hold", On: x.Name, For: p.lease()}, Action{Do: "kill", On: x.Name}, Action{Do: "wipe", On: x.Name, Path: "jetstream"})
	}
	p.down(t)
	return t.needProcesses()
}

// flipBit takes the node down for the flip, as a disk does its worst unseen.
// What comes of it is the node's to notice; the repair is to let it begin
// again with nothing.
func flipBit(p *Plan, s Spec, t Targets) error {
	if _, ok := parts[s.Part]; !ok {
		return fmt.Errorf("a process stores no %q: say part: log, part: state, or nothing", s.Part)
	}
	for i, name := range t.Names() {
		hold := Action{Do: "hold", On: name, For: p.lease()}
		if s.Part == "state" { // what it holds in memory becomes tables when it is asked to leave
			p.inject(Action{Do: "restart", On: name}, Action{Do: "ready", On: name, For: comeback})
		}
		p.inject(hold, Action{Do: "kill", On: name}, Action{Do: "flip", On: name, Path: s.Part, Seed: p.Seed + uint64(i)}, Action{Do: "release", On: name})
		p.undo(hold, Action{Do: "kill", On: name}, Action{Do: "wipe", On: name})
	}
	p.down(t)
	return t.needProcesses()
}

func rotateAuthority(p *Plan, _ Spec, _ Targets) error {
	p.inject(Action{Do: "rotate-authority"})
	p.verify(Action{Do: "certified"})
	return nil
}

func expireCertificate(p *Plan, s Spec, t Targets) error {
	if s.For == 0 {
		return fmt.Errorf("an expired certificate needs for: how long until it is replaced")
	}
	for _, name := range t.Names() {
		p.inject(Action{Do: "expire", On: name})
		p.undo(Action{Do: "renew", On: name})
		p.verify(Action{Do: "certified", On: name})
	}
	p.Down = t.Names()
	return t.needProcesses()
}

func poison(p *Plan, s Spec, t Targets) error {
	if len(t.Carriers) != 1 {
		return fmt.Errorf("poison needs a target such as carrier:unicom, whose broker it is given to")
	}
	p.inject(Action{Do: "publish", On: t.Carriers[0], Bytes: []byte("\xff\xfe these are no facts \x00\x01"), Seed: p.Seed})
	return nil
}

func surge(p *Plan, s Spec, _ Targets) error {
	if s.For == 0 || s.Times < 1 {
		return fmt.Errorf("a surge needs for and times")
	}
	p.Traffic = true
	return nil
}

// onLinks enters a fault that is a rule on links; change makes it what it is.
func onLinks(name, says string, change func(*link.Rule, Spec)) {
	enter(Fault{Name: name, Says: says, Needs: Links, plan: func(p *Plan, s Spec, t Targets) error {
		rules, err := t.rules(p.ID, s)
		if err != nil {
			return err
		}
		if s.For == 0 && name != "reset" {
			return fmt.Errorf("%s needs for: how long it lasts", name)
		}
		for _, r := range rules {
			change(&r, s)
			if name == "delay" && r.Delay == 0 || name == "narrow" && r.BytesRate == 0 || name == "drop" && r.Loss == 0 {
				return fmt.Errorf("%s does not say how much", name)
			}
			p.inject(Action{Do: "rule", Rule: &r, For: p.lease()})
			p.undo(Action{Do: "unrule", Path: r.ID})
			p.verify(Action{Do: "unruled", Path: r.ID})
		}
		if name == "cut" || name == "refuse" {
			p.Down = t.alone()
		}
		return nil
	}})
}

func flap(p *Plan, s Spec, t Targets) error {
	rules, err := t.rules(p.ID, s)
	if err != nil {
		return err
	}
	if s.For == 0 || s.Every == 0 || len(rules) != 1 {
		return fmt.Errorf("flapping needs one link, for, and every")
	}
	r := rules[0]
	r.Cut, r.Refuse, r.Reset = false, true, true
	p.inject(Action{Do: "flap", Rule: &r, For: s.For, Every: s.Every})
	p.undo(Action{Do: "unrule", Path: r.ID})
	p.verify(Action{Do: "unruled", Path: r.ID})
	return nil
}

// ring cuts the first and the last of three nodes apart: each of them still
// has a majority with the one between, and the three do not agree on which.
func ring(p *Plan, s Spec, t Targets) error {
	if len(t.Processes) != 3 || s.For == 0 {
		return fmt.Errorf("a ring needs for and a cluster of three, such as all(nucleic@unicom)")
	}
	r := link.Rule{ID: p.ID, From: link.Selector{Name: t.Names()[0]}, To: link.Selector{Name: t.Names()[2]}, Both: true, Cut: true}
	p.inject(Action{Do: "rule", Rule: &r, For: p.lease()})
	p.undo(Action{Do: "unrule", Path: r.ID})
	p.verify(Action{Do: "unruled", Path: r.ID})
	return nil
}
