// Command middlestored is one middle store at one carrier: the read model that
// displays ask.
package main

import (
	middlestore "qianma/middle-store"
	"qianma/services/internal/daemon"
)

func main() {
	daemon.Main("middlestored", "folds the facts of both carriers into what displays read", middlestore.Open)
}
