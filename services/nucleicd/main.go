// Command nucleicd is one replica of the nucleic subsystem at one carrier.
package main

import (
	"qianma/nucleic"
	"qianma/services/internal/daemon"
)

func main() {
	daemon.Main("nucleicd", "sites, tubes, registrations, lab reception and results", nucleic.Open)
}
