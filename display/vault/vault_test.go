package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"qianma/cluster/identity"
	"qianma/display/vault"
)

var (
	who     = [16]byte{1}
	citizen = vault.Citizen{Name: "王小明", Number: "520103199001011234", Phone: "13800000000"}
)

func open(t testing.TB) *vault.Vault {
	t.Helper()
	path := filepath.Join(t.TempDir(), vault.KeyFile)
	if err := identity.NewKey(path); err != nil {
		t.Fatal(err)
	}
	v, err := vault.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOnlyTheSamePersonUnderTheSameKeyOpens(t *testing.T) {
	v, other := open(t), open(t)
	sealed, err := v.Seal(who, citizen)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("5201")) {
		t.Fatal("the number can be read")
	}
	if got, err := v.Open(who, v.KeyID(), sealed); err != nil || got != citizen {
		t.Fatal(err)
	}
	again, _ := v.Seal(who, citizen)
	if bytes.Equal(again, sealed) {
		t.Fatal("two seals of one citizen look the same")
	}
	damaged := bytes.Clone(sealed)
	damaged[len(damaged)-1] ^= 1
	for name, try := range map[string]func() error{
		"another person": func() error { _, err := v.Open([16]byte{2}, v.KeyID(), sealed); return err },
		"another key":    func() error { _, err := other.Open(who, other.KeyID(), sealed); return err },
		"another key id": func() error { _, err := v.Open(who, "00000000", sealed); return err },
		"damaged":        func() error { _, err := v.Open(who, v.KeyID(), damaged); return err },
		"short":          func() error { _, err := v.Open(who, v.KeyID(), sealed[:3]); return err },
	} {
		if err := try(); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPrintingShowsNothing(t *testing.T) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if got := fmt.Sprintf(verb, citizen); strings.Contains(got, "5201") || strings.Contains(got, "王") {
			t.Errorf("%s shows %s", verb, got)
		}
	}
}

func TestMasked(t *testing.T) {
	for name, want := range map[string]string{"王小明": "王**", "李雷": "李*", "": "", "欧阳娜娜": "欧**", "Z": "Z*"} {
		if got := (vault.Citizen{Name: name}).Masked(); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestKeyFileThatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	for _, content := range []string{"", "zz", "00"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := vault.Load(path); err == nil {
			t.Errorf("%q was taken for a key", content)
		}
	}
	if _, err := vault.Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no file was taken for a key")
	}
}

func FuzzOpen(f *testing.F) {
	v := open(f)
	sealed, _ := v.Seal(who, citizen)
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if c, err := v.Open(who, v.KeyID(), raw); err == nil && c != citizen {
			t.Fatal("something that was never sealed was opened")
		}
	})
}
