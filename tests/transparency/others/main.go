// Checks an export of the audit log, and a consistency proof, with Go's own checksum database code and the formats of
// transparency.dev: nothing here is Pilothouse's. Debian: golang-golang-x-mod-dev, golang-github-transparency-dev-formats-dev.
//
//	main EXPORT KEY [OLDER_CHECKPOINT PROOF]
//	main --cosigned CHECKPOINT ORIGIN KEY WITNESS_KEY...
//
// EXPORT is lines of JSON as `pilothouse audit export` writes them, PROOF a JSON list of base64 hashes.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	f_log "github.com/transparency-dev/formats/log"
	f_note "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type line struct {
	Checkpoint string  `json:"checkpoint"`
	Origin     string  `json:"origin"`
	Sequence   int64   `json:"sequence"`
	Record     *string `json:"record"`
	Proof      string  `json:"proof"`
	End        bool    `json:"end"`
	Records    int64   `json:"records"`
	Complete   bool    `json:"complete"`
	// Of the end: what retention has dropped.
	Dropped    [][]int64 `json:"dropped"`
	Signatures string    `json:"signatures"`
}

// dropRecord is the record by which retention tells what it has dropped.
type dropRecord struct {
	Action       string      `json:"action"`
	ResourceType string      `json:"resource_type"`
	UserID       *int64      `json:"user_id"`
	Metadata     signedDrops `json:"metadata"`
}

// signedDrops is what it tells.
type signedDrops struct {
	Dropped    [][]int64 `json:"dropped"`
	Signatures string    `json:"signatures"`
}

// stretch are records, from the first to the last.
type stretch struct{ first, last int64 }

// export is what was read of one.
type export struct {
	verifier                note.Verifier
	head                    *f_log.Checkpoint
	place, records, checked int64
	missing, dropped        []stretch
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "WRONG:", err)
		os.Exit(1)
	}
}

func hashes(raw []byte) []tlog.Hash {
	found := make([]tlog.Hash, len(raw)/tlog.HashSize)
	for i := range found {
		copy(found[i][:], raw[i*tlog.HashSize:])
	}
	return found
}

func root(checkpoint *f_log.Checkpoint) tlog.Hash {
	var found tlog.Hash
	copy(found[:], checkpoint.Hash)
	return found
}

// cosigner verifies cosignature/v1. The library is handed a witness's key as one of Ed25519, as which it is written by
// its first byte, and makes the identifier of the cosignature itself.
func cosigner(key string) note.Verifier {
	parts := strings.SplitN(key, "+", 3)
	if len(parts) != 3 {
		must(fmt.Errorf("%q is no key", key))
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	must(err)
	if len(raw) == 0 || raw[0] != 4 {
		must(fmt.Errorf("%q is no witness's key", key))
	}
	raw[0] = 1
	parts[2] = base64.StdEncoding.EncodeToString(raw)
	found, err := f_note.NewVerifierForCosignatureV1(strings.Join(parts, "+"))
	must(err)
	return found
}

// follows prints the head of the history before, which the first head of a history names in its extension line.
func follows(extension []byte) {
	for _, each := range strings.Split(string(extension), "\n") {
		if strings.HasPrefix(each, "follows ") {
			fmt.Println(each)
		}
	}
}

// cosigned checks that a checkpoint bears the signatures of the log and of every witness.
func cosigned(file, origin, key string, keys []string) {
	text, err := os.ReadFile(file)
	must(err)
	verifier, err := note.NewVerifier(key)
	must(err)
	witnesses := make([]note.Verifier, len(keys))
	for i, each := range keys {
		witnesses[i] = cosigner(each)
	}
	head, extension, signed, err := f_log.ParseCheckpoint(text, origin, verifier, witnesses...)
	must(err)
	follows(extension)
	moments := map[string]time.Time{}
	for _, each := range signed.Sigs {
		if each.Hash == verifier.KeyHash() && each.Name == verifier.Name() {
			continue
		}
		moments[each.Name], err = f_note.CoSigV1Timestamp(each)
		must(err)
	}
	for _, each := range witnesses {
		moment, there := moments[each.Name()]
		if !there {
			must(fmt.Errorf("%s has not signed", each.Name()))
		}
		fmt.Println(each.Name(), moment.Unix(), head.Size)
	}
}

// record checks that a record stands in the log at its place, after the one before.
func (e *export) record(entry line) {
	what := fmt.Sprintf("record %d", entry.Sequence)
	if entry.Sequence <= e.place {
		must(fmt.Errorf("%s comes after record %d", what, e.place))
	}
	if entry.Sequence > e.place+1 {
		e.missing = append(e.missing, stretch{e.place + 1, entry.Sequence - 1})
	}
	e.place = entry.Sequence
	e.records++
	digest := sha256.Sum256([]byte(*entry.Record))
	raw, err := base64.StdEncoding.DecodeString(entry.Proof)
	must(err)
	err = tlog.CheckRecord(hashes(raw), int64(e.head.Size), root(e.head), entry.Sequence-1, tlog.RecordHash(digest[:]))
	if err != nil {
		must(fmt.Errorf("%s is not in the log at its place: %w", what, err))
	}
	e.checked++
	var told dropRecord
	must(json.Unmarshal([]byte(*entry.Record), &told))
	if told.Action == "delete" && told.ResourceType == "audit_log" && told.UserID == nil {
		e.drops(told)
	}
}

// drops takes what the log has signed that retention dropped; what it has not signed counts for nothing.
func (e *export) drops(told dropRecord) {
	text := e.verifier.Name() + "\ndropped\n"
	var found []stretch
	for _, each := range told.Metadata.Dropped {
		first, last := each[0], each[1]
		text += fmt.Sprintf("%d %d\n", first, last)
		found = append(found, stretch{first, last})
	}
	_, err := note.Open([]byte(text+"\n"+told.Metadata.Signatures), note.VerifierList(e.verifier))
	if err == nil {
		e.dropped = found
	}
}

// end checks that nothing is missing but what was dropped.
func (e *export) end(entry line) {
	if entry.Records != e.records {
		must(fmt.Errorf("there are %d records, and the end says %d", e.records, entry.Records))
	}
	e.drops(dropRecord{Metadata: signedDrops{entry.Dropped, entry.Signatures}})
	if last := int64(e.head.Size); e.place < last {
		e.missing = append(e.missing, stretch{e.place + 1, last})
	}
	for _, gap := range e.missing {
		told := !entry.Complete
		for _, each := range e.dropped {
			told = told || each.first <= gap.first && gap.last <= each.last
		}
		if !told {
			must(fmt.Errorf("records %d to %d are missing", gap.first, gap.last))
		}
	}
}

func main() {
	if os.Args[1] == "--cosigned" {
		cosigned(os.Args[2], os.Args[3], os.Args[4], os.Args[5:])
		return
	}
	verifier, err := note.NewVerifier(os.Args[2])
	must(err)
	file, err := os.Open(os.Args[1])
	must(err)
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<22)
	read := export{verifier: verifier}
	ended := false
	for lines.Scan() && !ended {
		var entry line
		must(json.Unmarshal(lines.Bytes(), &entry))
		switch {
		case read.head == nil:
			var extension []byte
			read.head, extension, _, err = f_log.ParseCheckpoint([]byte(entry.Checkpoint), entry.Origin, verifier)
			must(err)
			follows(extension)
		case entry.End:
			ended = true
			read.end(entry)
		default:
			read.record(entry)
		}
	}
	must(lines.Err())
	if !ended {
		must(fmt.Errorf("the export is cut off after record %d", read.place))
	}
	head := read.head
	if len(os.Args) > 4 {
		text, err := os.ReadFile(os.Args[3])
		must(err)
		older, _, _, err := f_log.ParseCheckpoint(text, head.Origin, verifier)
		must(err)
		text, err = os.ReadFile(os.Args[4])
		must(err)
		var encoded [][]byte
		must(json.Unmarshal(text, &encoded))
		var raw []byte
		for _, each := range encoded {
			raw = append(raw, each...)
		}
		must(tlog.CheckTree(hashes(raw), int64(head.Size), root(head), int64(older.Size), root(older)))
		fmt.Println("consistent with", older.Size)
	}
	fmt.Println(read.checked, "records in", head.Size, "leaves of", head.Origin)
}
