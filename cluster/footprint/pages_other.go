//go:build !linux

package footprint

func hugePages(int) {}
