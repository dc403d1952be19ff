package token

// EncodeText and DecodeText give tests the bytes behind a token's text.
func EncodeText(raw []byte) string { return string(appendBase45([]byte(Prefix), raw)) }

func DecodeText(text string) []byte {
	raw, _ := decodeBase45(text[len(Prefix):])
	return raw
}
