package journal

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	enginerecord "github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// quarantinePrefix begins the names of the directories that hold the files of damaged journals.
	quarantinePrefix = "quarantine-"
	// unreadSuffix ends them until what can be read is safe in the new journal.
	unreadSuffix = ".unread"
	lockFile     = "LOCK"
)

// The names of the engine's files.
const (
	logSuffix      = ".log"
	tableSuffix    = ".sst"
	manifestMarker = "marker.manifest."
	formatMarker   = "marker.format-version."
)

// inspect looks for damage that the engine takes for the end of what was written, or for a journal that is yet to be made:
// it would go on, and delete the rest. It returns what was written behind the point at which the engine stops reading, if
// nothing says whether it was acknowledged.
func inspect(fs vfs.FS, dir string, existing bool) (behind [][]written, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	var manifest, newest string
	data := false
	// A marker is an empty file marker.<what>.<iteration>.<value>, and the highest iteration counts.
	slices.Sort(names)
	for _, name := range names {
		if found, ok := strings.CutPrefix(name, manifestMarker); ok {
			_, manifest, _ = strings.Cut(found, ".")
		}
		if found, ok := strings.CutPrefix(name, formatMarker); ok {
			_, found, _ = strings.Cut(found, ".")
			if version, err := strconv.ParseUint(found, 10, 64); err == nil && version > uint64(pebble.FormatNewest) {
				return nil, &formatError{version}
			}
		}
		data = data || strings.HasSuffix(name, logSuffix) || strings.HasSuffix(name, tableSuffix)
		if strings.HasSuffix(name, logSuffix) && logNumber(name) >= logNumber(newest) {
			newest = name
		}
	}
	switch {
	case manifest == "" && data:
		return nil, errors.New("the manifest is missing")
	case manifest == "" && existing && !slices.ContainsFunc(names, isUnread):
		return nil, pebble.ErrDBDoesNotExist
	case manifest == "":
		return nil, nil
	}
	if err := inspectManifest(fs, fs.PathJoin(dir, manifest)); err != nil || newest == "" {
		return nil, err
	}
	log, err := readFile(fs, fs.PathJoin(dir, newest))
	if err != nil {
		return nil, err
	}
	torn := scanLog(log, logNumber(newest), func(record []byte, unreached bool) {
		if unreached {
			behind = append(behind, operationsOf(record))
		}
	})
	if torn {
		return nil, fmt.Errorf("%s is damaged before its end", newest)
	}
	return behind, nil
}

// inspectManifest reads the list of the engine's files to its end. The engine stops where it cannot read on, with the files
// of an earlier moment, and deletes those that came later. Where a crash tore the list the same is done as with damage,
// since nothing tells them apart; the moment is short.
func inspectManifest(fs vfs.FS, path string) error {
	file, err := fs.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	records := enginerecord.NewReader(file, 0)
	for {
		r, err := records.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the manifest is damaged: %w", err)
		}
	}
}

func logNumber(name string) uint64 {
	number, _ := strconv.ParseUint(strings.TrimSuffix(name, logSuffix), 10, 64)
	return number
}

func readFile(fs vfs.FS, path string) (data []byte, err error) {
	file, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return io.ReadAll(file)
}

func isUnread(name string) bool {
	return strings.HasPrefix(name, quarantinePrefix) && strings.HasSuffix(name, unreadSuffix)
}

// quarantine moves the files of a damaged journal into a directory of their own. A crash in the middle leaves what is damaged
// as well, or what can be opened; in both cases the next Open salvages what was moved.
func (j *Journal) quarantine() error {
	fs := j.space
	// What another version wrote is not ours to take apart.
	if _, err := readIndex(fs, j.dir); err != nil {
		return err
	}
	names, err := fs.List(j.dir)
	if err != nil {
		return err
	}
	base := quarantinePrefix + j.options.Now().UTC().Format("20060102T150405Z")
	name := base
	for n := 2; slices.Contains(names, name) || slices.Contains(names, name+unreadSuffix); n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	into := fs.PathJoin(j.dir, name+unreadSuffix)
	if err := makeDirectory(fs, into); err != nil {
		return fmt.Errorf("put the damaged journal aside: %w", err)
	}
	for _, name := range names {
		if name == lockFile || name == reserveFile || strings.HasPrefix(name, quarantinePrefix) {
			continue
		}
		if err := fs.Rename(fs.PathJoin(j.dir, name), fs.PathJoin(into, name)); err != nil {
			return fmt.Errorf("put the damaged journal aside: %w", err)
		}
	}
	return errors.Join(syncDirectory(fs, into), syncDirectory(fs, j.dir))
}

// Quarantined returns the number of directories with the files of damaged journals. They are kept until somebody removes
// them.
func (j *Journal) Quarantined() (directories int) {
	names, err := j.options.FS.List(j.dir)
	if err != nil {
		return 0
	}
	for _, name := range names {
		if strings.HasPrefix(name, quarantinePrefix) {
			directories++
		}
	}
	return directories
}
