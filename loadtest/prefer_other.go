//go:build !linux

package loadtest

func prefer() (how string, restore func()) { return "as everybody", func() {} }
