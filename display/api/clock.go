package api

import "time"

// timeForm is how every time of this API is written: UTC, milliseconds where
// there are any.
const timeForm = "2006-01-02T15:04:05.999Z07:00"

// appendTime writes a time in quotes; 0 is null. Eight of them stand in every
// code that is shown, so the calendar is worked out here, in the way of
// Hinnant's civil_from_days; what does not have four digits of year is left to
// the library.
func appendTime(b []byte, ms int64) []byte {
	if ms == 0 {
		return append(b, "null"...)
	}
	if ms < 0 || ms >= 253402300800_000 { // from the year 10000 on
		return append(time.UnixMilli(ms).UTC().AppendFormat(append(b, '"'), timeForm), '"')
	}
	days, rest := ms/86400_000, int(ms%86400_000)
	y, m, d := civil(int(days))
	b = append(b, '"', byte('0'+y/1000), byte('0'+y/100%10), byte('0'+y/10%10), byte('0'+y%10), '-')
	b = append(two(b, m), '-')
	b = append(two(b, d), 'T')
	b = append(two(b, rest/3600_000), ':')
	b = append(two(b, rest/60_000%60), ':')
	b = two(b, rest/1000%60)
	if frac := rest % 1000; frac != 0 {
		b = append(b, '.', byte('0'+frac/100), byte('0'+frac/10%10), byte('0'+frac%10))
		for b[len(b)-1] == '0' {
			b = b[:len(b)-1]
		}
	}
	return append(b, 'Z', '"')
}

func two(b []byte, n int) []byte { return append(b, byte('0'+n/10), byte('0'+n%10)) }

// civil is the date of a day counted from 1970-01-01, for days that are not
// before it. Years begin in March here, so that the leap day comes last.
func civil(days int) (year, month, day int) {
	z := days + 719468
	era := z / 146097
	ofEra := z - era*146097
	yearOfEra := (ofEra - ofEra/1460 + ofEra/36524 - ofEra/146096) / 365
	ofYear := ofEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	m := (5*ofYear + 2) / 153
	day = ofYear - (153*m+2)/5 + 1
	month, year = m+3, yearOfEra+era*400
	if month > 12 {
		month, year = month-12, year+1
	}
	return year, month, day
}
