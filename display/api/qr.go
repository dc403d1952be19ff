package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"time"

	"github.com/boombuler/barcode/qr"

	"qianma/cluster/problem"
	"qianma/display/token"
)

// A picture has modules of scale pixels and a quiet zone of quiet modules, as
// the standard asks for.
const (
	scale = 5
	quiet = 4
)

// drawQR draws a token as a PNG. Level Q survives a cracked screen; a token's
// characters are all of the set that a QR code packs best.
func drawQR(text string) ([]byte, error) {
	square, err := qr.Encode(text, qr.Q, qr.AlphaNumeric)
	if err != nil {
		return nil, err
	}
	n := square.Bounds().Dx()
	side := (n + 2*quiet) * scale
	img := image.NewPaletted(image.Rect(0, 0, side, side), color.Palette{color.White, color.Black})
	for y := range n {
		row := img.Pix[(y+quiet)*scale*img.Stride:]
		for x := range n {
			if r, _, _, _ := square.At(x, y).RGBA(); r != 0 {
				continue
			}
			for dx := range scale {
				row[(x+quiet)*scale+dx] = 1
			}
		}
		for dy := 1; dy < scale; dy++ {
			copy(row[dy*img.Stride:(dy+1)*img.Stride], row[:img.Stride])
		}
	}
	var out bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.BestSpeed}
	err = enc.Encode(&out, img)
	return out.Bytes(), err
}

// drawWait is how long a picture may wait for its turn.
const drawWait = 300 * time.Millisecond

// drawn draws when there is a place: pictures cost a hundred times what a code
// does, and must not take the processor from codes.
func (a *API) drawn(ctx context.Context, text string) ([]byte, error) {
	if text == "" {
		return nil, problem.New(problem.Unavailable, "there is no token to draw now", "show the colour in words and try again in a moment").After(time.Second)
	}
	ctx, cancel := context.WithTimeout(ctx, drawWait)
	defer cancel()
	select {
	case a.qr <- struct{}{}:
	case <-ctx.Done():
		return nil, problem.New(problem.Overloaded, "too many pictures are being drawn", "show the colour in words, or draw the token yourself, and try again in a moment").After(2 * time.Second)
	}
	defer func() { <-a.qr }()
	return drawQR(text)
}

// picture is a drawing as a data URI; empty when it cannot be drawn in time:
// the code itself does not wait for its picture.
func (a *API) picture(ctx context.Context, text string) string {
	raw, err := a.drawn(ctx, text)
	if err != nil {
		return ""
	}
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString(raw)
}

// drawCode is GET /v1/code.png: the QR picture of a person's token, or of
// their offline token with include=offline.
func (a *API) drawCode(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	q.qr = false
	c := codes.Get().(*code)
	defer codes.Put(c)
	if err := a.make(r.Context(), c, &q, a.now()); err != nil {
		return err
	}
	drawn, kind := c.online, token.Online
	if q.offline {
		drawn, kind = c.offline, token.Offline
	}
	raw, err := a.drawn(r.Context(), drawn.text)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "image/png")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Token-Kind", kind.String())
	h.Set("X-Token-Expires-At", moment(1000*drawn.expires))
	_, err = w.Write(raw)
	return err
}
