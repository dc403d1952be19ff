package fold

import (
	"bytes"

	"github.com/cockroachdb/pebble/v2"
)

// Comparer orders keys by their bytes and knows their prefixes, so that a
// store can keep filters over them. Its name goes into the store's files.
var Comparer = &pebble.Comparer{
	Name:                 "qianma.middlestore.v1",
	Split:                Split,
	Compare:              bytes.Compare,
	Equal:                bytes.Equal,
	ComparePointSuffixes: bytes.Compare,
	CompareRangeSuffixes: bytes.Compare,
	AbbreviatedKey:       pebble.DefaultComparer.AbbreviatedKey,
	Separator:            pebble.DefaultComparer.Separator,
	Successor:            pebble.DefaultComparer.Successor,
	FormatKey:            pebble.DefaultComparer.FormatKey,
}
