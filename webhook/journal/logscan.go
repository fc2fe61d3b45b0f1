package journal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// The engine's write-ahead log is a sequence of blocks, and each block one of chunks:
//
//	checksum (4 bytes) | size (2) | type (1) | number of the log (4) | synced (8) | payload
//
// A record is one chunk, or several in a row. Types 5 to 8 have no member synced, which is the offset up to which the log
// was on the disk when the chunk was written. The engine's own reader stops where a chunk is damaged, and does not look at
// the rest of that block. What it stops at may be acknowledged, and so may what follows.
const (
	logBlock = 32 << 10

	chunkFull   = 0
	chunkFirst  = 1
	chunkMiddle = 2
	chunkLast   = 3

	oldChunkHeader = 11
	chunkHeader    = 19
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chunk is one chunk of a log.
type chunk struct {
	part    byte
	log     uint32
	synced  uint64
	payload []byte
	size    int
}

// parseChunk returns the chunk that data begins with. That users' text looks like one is impossible: a record is JSON, which
// escapes the byte that would be the type.
func parseChunk(data []byte) (c chunk, ok bool) {
	if len(data) < oldChunkHeader {
		return c, false
	}
	header := chunkHeader
	switch kind := data[6]; {
	case kind >= 5 && kind <= 8:
		c.part, header = kind-5, oldChunkHeader
	case kind >= 9 && kind <= 12:
		c.part = kind - 9
	default:
		return c, false
	}
	c.size = header + int(binary.LittleEndian.Uint16(data[4:]))
	if c.size > len(data) {
		return c, false
	}
	sum := crc32.Checksum(data[6:c.size], castagnoli)
	if binary.LittleEndian.Uint32(data) != (sum>>15|sum<<17)+0xa282ead8 {
		return c, false
	}
	c.log = binary.LittleEndian.Uint32(data[7:])
	if header == chunkHeader {
		c.synced = binary.LittleEndian.Uint64(data[11:])
	}
	c.payload = data[header:c.size]
	return c, true
}

// scanLog calls each with every record in a log file that can be read, also with what comes after damage, and with what an
// earlier log left in the file; behind says that it is of this log, and that the engine does not reach it. It returns whether
// the log is damaged: whether something after the first chunk that cannot be read says that it was on the disk. Otherwise a
// crash may have torn the tail of the log, which nobody was promised. But the engine understates what was on the disk, the
// more the longer the log is, so that nothing certain follows.
func scanLog(data []byte, number uint64, each func(record []byte, behind bool)) (damaged bool) {
	var record []byte
	var recordLog uint32
	inRecord, ended := false, false
	bad := -1
	spoiled := func(at int) {
		inRecord = false
		if bad < 0 {
			bad = at
		}
	}
	for start := 0; start < len(data); start += logBlock {
		block := data[start:min(start+logBlock, len(data))]
		for at := 0; at < len(block); {
			c, ok := parseChunk(block[at:])
			if !ok {
				// A block is filled up with zeroes where no header fits.
				if rest := block[at:]; len(rest) >= chunkHeader || len(bytes.Trim(rest, "\x00")) > 0 {
					spoiled(start + at)
				}
				at += 1 + nextChunk(block[at+1:])
				continue
			}
			own := c.log == uint32(number) && !ended //nolint:gosec // the low bits are what is written
			switch {
			case own:
				damaged = damaged || bad >= 0 && c.synced > uint64(bad)
			case c.log == uint32(number)+1 && len(c.payload) == 0: //nolint:gosec // as above
				ended = true
			default:
				// What the file held before it was used again.
				spoiled(start + at)
			}
			at += c.size
			if c.part == chunkFull || c.part == chunkFirst {
				record, recordLog, inRecord = nil, c.log, true
			}
			if !inRecord || c.log != recordLog {
				inRecord = false
				continue
			}
			record = append(record, c.payload...)
			if c.part == chunkFull || c.part == chunkLast {
				each(record, own && bad >= 0)
				inRecord = false
			}
		}
	}
	return damaged
}

// nextChunk returns the offset of the next chunk that can be read, or the length of data.
func nextChunk(data []byte) int {
	for at := range data {
		// Most bytes are no type, and need no checksum.
		if at+oldChunkHeader <= len(data) && data[at+6] >= 5 && data[at+6] <= 12 {
			if _, ok := parseChunk(data[at:]); ok {
				return at
			}
		}
	}
	return len(data)
}
