package loadtest

import (
	"fmt"

	"qianma/loadtest/client"
)

// spareFiles is for what is no connection to a node: ledger, report, watching.
const spareFiles = 512

// perNode is how many connections each of so many nodes gets: as many as were
// asked for, or else 1,024, or fewer where this process may not open so many files.
// Without that it would find out in the middle of a crowd, at every attempt.
func perNode(asked, nodes int) (int, error) {
	return shareFiles(asked, nodes, openFiles())
}

func shareFiles(asked, nodes int, files uint64) (int, error) {
	most := int(min(files, 1<<30)-min(files, spareFiles)) / max(1, nodes)
	switch {
	case asked > most:
		return 0, misuse{fmt.Errorf("--connections is %d: to %d nodes they are %d files, and this process may open %d; give %d at most, or raise ulimit -n",
			asked, nodes, asked*nodes, files, most)}
	case asked > 0:
		return asked, nil
	}
	return max(1, min(client.UsualPerNode, most)), nil
}
