package sampleday

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// person is one invented human being as a booth's desk writes them down.
type person struct {
	kind, number, country, name string
}

// Names of document kinds as exports print them.
const (
	resident  = "居民身份证"
	hkMacau   = "港澳居民来往内地通行证"
	taiwan    = "台湾居民来往大陆通行证"
	residence = "港澳台居民居住证"
	foreign   = "外国人永久居留身份证"
	passport  = "护照"
	birth     = "出生医学证明"
)

var surnames = strings.Fields("王 李 张 刘 陈 杨 黄 赵 吴 周 徐 孙 马 朱 胡 郭 何 高 罗 龙 潘 韦 石 田 冉 蒙 陆 欧阳 安 陶")

var given = strings.Fields("伟 芳 娜 敏 静 丽 强 磊 军 洋 勇 艳 杰 涛 明 超 秀英 霞 平 刚 桂英 建华 志强 子涵 梓轩 欣怡 雨桐 浩然 诗涵 一诺 黔生 苗 月亮 阿依")

// elsewhere are counties outside Guizhou: people who live here and were born
// there, and one county code that was abolished and stays valid in numbers.
var elsewhere = []string{"510104", "430102", "500103", "440106", "310104", "110105", "522121", "522223"}

// newcomer invents a person whose document nobody else of the day has.
func (w *writer) newcomer(surname string, i int) person {
	for {
		p := w.person(surname, i)
		if _, taken := w.taken[p.number]; !taken {
			w.taken[p.number] = struct{}{}
			return p
		}
	}
}

// person invents member i of a household: the first two are adults.
func (w *writer) person(surname string, i int) person {
	name := surname + given[w.rng.IntN(len(given))]
	if i >= 2 && w.rng.IntN(40) == 0 {
		return person{birth, fmt.Sprintf("T52%07d", w.rng.IntN(10_000_000)), "", name}
	}
	switch pick(w.rng, []string{resident, hkMacau, taiwan, residence, foreign, passport}, []int{9720, 70, 50, 40, 40, 80}) {
	case hkMacau:
		return person{hkMacau, fmt.Sprintf("%c%08d", "HM"[w.rng.IntN(2)], w.rng.IntN(100_000_000)), "", name}
	case taiwan:
		return person{taiwan, fmt.Sprintf("%08d", w.rng.IntN(100_000_000)), "", name}
	case residence:
		return person{residence, w.numbered([]string{"810000", "820000", "830000"}[w.rng.IntN(3)], i), "", name}
	case foreign:
		body := fmt.Sprintf("9%02d%03d%s%03d", 11+w.rng.IntN(50), 1+w.rng.IntN(900), w.birthday(i), w.rng.IntN(1000))
		return person{foreign, body + string(checkDigit(body)), "", "ALEX " + surname}
	case passport:
		return person{passport, fmt.Sprintf("%c%08d", 'A'+rune(w.rng.IntN(26)), w.rng.IntN(100_000_000)),
			[]string{"USA", "GBR", "VNM", "LAO", "KOR", "FRA"}[w.rng.IntN(6)], "SAM " + surname}
	}
	division := counties[w.rng.IntN(len(counties))]
	if w.rng.IntN(16) == 0 {
		division = elsewhere[w.rng.IntN(len(elsewhere))]
	}
	number := w.numbered(division, i)
	if w.rng.IntN(500) == 0 {
		number = number[:17] + string(wrongDigit(w.rng, number[17]))
	}
	return person{resident, number, "", name}
}

// numbered is an 18-digit number: division, birthday, sequence, check digit.
func (w *writer) numbered(division string, member int) string {
	body := division + w.birthday(member) + fmt.Sprintf("%03d", w.rng.IntN(1000))
	return body + string(checkDigit(body))
}

func (w *writer) birthday(member int) string {
	year := 1940 + w.rng.IntN(62)
	if member >= 2 {
		year = 2005 + w.rng.IntN(16)
	}
	return fmt.Sprintf("%04d%02d%02d", year, 1+w.rng.IntN(12), 1+w.rng.IntN(28))
}

// checkDigit is ISO 7064 MOD 11-2 over 17 digits, as GB 11643 uses it.
func checkDigit(body string) byte {
	sum := 0
	for _, c := range body {
		sum = (sum + int(c-'0')) * 2 % 11
	}
	return "0123456789X"[(12-sum)%11]
}

// wrongDigit is any digit but the right one.
func wrongDigit(rng *rand.Rand, right byte) byte {
	for {
		if d := byte('0' + rng.IntN(10)); d != right {
			return d
		}
	}
}
