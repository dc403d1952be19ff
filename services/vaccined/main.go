// Command vaccined is one replica of the vaccine subsystem at one carrier.
package main

import (
	"qianma/services/internal/daemon"
	"qianma/vaccine"
)

func main() { daemon.Main("vaccined", "vaccine doses and their history", vaccine.Open) }
