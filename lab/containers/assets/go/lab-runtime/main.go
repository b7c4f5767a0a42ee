// lab-runtime stands in front of runc. As `runc` it takes out of a container's specification what a machine without
// CAP_SYS_RESOURCE cannot grant. As `nvidia-container-runtime` it hands SIMULATED gpus to containers that ask for
// them.
package main

import (
	"encoding/json"
	"fmt"
	"io/ioutil"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

type object = map[string]interface{}

const capSysResource = 24 // linux/capability.h

func main() {
	name := filepath.Base(os.Args[0])
	if err := prepare(name, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s (lab): %v\n", name, err)
		os.Exit(1)
	}
	real, err := realRunc()
	if err == nil {
		err = syscall.Exec(real, append([]string{"runc"}, os.Args[1:]...), os.Environ())
	}
	fmt.Fprintf(os.Stderr, "%s (lab): runc cannot be started: %v\n", name, err)
	os.Exit(1)
}

// realRunc gives the first runc that is not this program itself.
func realRunc() (string, error) {
	self, _ := os.Stat("/proc/self/exe")
	for _, path := range []string{"/usr/sbin/runc", "/usr/bin/runc"} {
		if found, err := os.Stat(path); err == nil && !os.SameFile(self, found) {
			return path, nil
		}
	}
	return "", fmt.Errorf("neither /usr/sbin/runc nor /usr/bin/runc is there: install runc")
}

func prepare(name string, args []string) error {
	lacking, err := lacksSysResource()
	if err != nil {
		return err
	}
	for _, word := range args {
		switch word {
		case "create", "run":
			bundle := option(args, "--bundle", "-b")
			if bundle == "" {
				bundle = "."
			}
			return edit(filepath.Join(bundle, "config.json"), func(spec object) error {
				process, _ := spec["process"].(object)
				if process != nil && lacking {
					lower(process)
				}
				if process != nil && name == "nvidia-container-runtime" {
					return addGpus(spec, process, bundle)
				}
				return nil
			})
		case "exec":
			if path := option(args, "--process", "-p"); path != "" && lacking {
				return edit(path, func(process object) error { lower(process); return nil })
			}
			return nil
		}
	}
	return nil
}

func option(args []string, names ...string) string {
	for i, word := range args {
		for _, name := range names {
			if word == name && i+1 < len(args) {
				return args[i+1]
			}
			if strings.HasPrefix(word, name+"=") {
				return word[len(name)+1:]
			}
		}
	}
	return ""
}

func edit(path string, change func(object) error) error {
	text, err := ioutil.ReadFile(path)
	if err != nil {
		return err
	}
	content := object{}
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber() // 64-bit numbers stay exact
	if err := decoder.Decode(&content); err != nil {
		return fmt.Errorf("%s: %v", path, err)
	}
	if err := change(content); err != nil {
		return err
	}
	if text, err = json.Marshal(content); err != nil {
		return err
	}
	return ioutil.WriteFile(path, text, 0600)
}

func lacksSysResource() (bool, error) {
	status, err := ioutil.ReadFile("/proc/self/status")
	if err != nil {
		return false, err
	}
	for _, line := range strings.Split(string(status), "\n") {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "CapBnd:" {
			bits, err := strconv.ParseUint(fields[1], 16, 64)
			return bits>>capSysResource&1 == 0, err
		}
	}
	return false, fmt.Errorf("/proc/self/status has no CapBnd line")
}

// lower removes from a process what only CAP_SYS_RESOURCE may give: itself, a lower OOM score, higher limits.
func lower(process object) {
	capabilities, _ := process["capabilities"].(object)
	for set, names := range capabilities {
		kept := []interface{}{}
		list, _ := names.([]interface{})
		for _, name := range list {
			if name != "CAP_SYS_RESOURCE" {
				kept = append(kept, name)
			}
		}
		capabilities[set] = kept
	}
	if score, ok := process["oomScoreAdj"].(json.Number); ok {
		text, _ := ioutil.ReadFile("/proc/self/oom_score_adj")
		own, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if wanted, err := score.Int64(); err == nil && wanted < own {
			process["oomScoreAdj"] = own
		}
	}
	limits, _ := process["rlimits"].([]interface{})
	for _, item := range limits {
		lowerLimit(item)
	}
}

// Numbers of resources: asm-generic/resource.h.
var resources = map[string]int{"RLIMIT_CORE": 4, "RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8}

func lowerLimit(item interface{}) {
	limit, _ := item.(object)
	number, known := resources[fmt.Sprint(limit["type"])]
	own := syscall.Rlimit{}
	if !known || syscall.Getrlimit(number, &own) != nil {
		return
	}
	for _, key := range []string{"hard", "soft"} {
		wanted, err := strconv.ParseUint(fmt.Sprint(limit[key]), 10, 64)
		if err == nil && wanted > own.Max {
			limit[key] = own.Max
		}
	}
}

const (
	cardList  = "/var/lib/labgpu/devices"
	mountRoot = "/var/run/nvidia-container-devices"
	settings  = "/etc/nvidia-container-runtime/config.toml"
)

// setting gives one of the toolkit's settings at the top of its file; what stands in a table is another's.
func setting(key string, otherwise bool) bool {
	text, _ := ioutil.ReadFile(settings)
	for _, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			break
		}
		if parts := strings.SplitN(line, "=", 2); len(parts) == 2 && strings.TrimSpace(parts[0]) == key {
			return strings.HasPrefix(strings.TrimSpace(parts[1]), "true")
		}
	}
	return otherwise
}

// requested gives what a container asks for, as NVIDIA's toolkit reads it: mounts of /dev/null below mountRoot first,
// the variable then; each only where the settings accept it. The lab's pods with gpus are all unprivileged.
func requested(spec, process object) string {
	if setting("accept-nvidia-visible-devices-as-volume-mounts", false) {
		found := []string{}
		mounts, _ := spec["mounts"].([]interface{})
		for _, item := range mounts {
			mount, _ := item.(object)
			destination := filepath.Clean(fmt.Sprint(mount["destination"]))
			if filepath.Clean(fmt.Sprint(mount["source"])) == "/dev/null" && strings.HasPrefix(destination, mountRoot+"/") {
				found = append(found, strings.TrimPrefix(destination, mountRoot+"/"))
			}
		}
		if len(found) > 0 {
			return strings.Join(found, ",")
		}
	}
	wanted := ""
	environment, _ := process["env"].([]interface{})
	for _, item := range environment {
		if text, _ := item.(string); strings.HasPrefix(text, "NVIDIA_VISIBLE_DEVICES=") {
			wanted = strings.SplitN(text, "=", 2)[1]
		}
	}
	if !setting("accept-nvidia-visible-devices-envvar-when-unprivileged", true) {
		return ""
	}
	return wanted
}

// addGpus does for SIMULATED gpus what NVIDIA's runtime does for real ones: a container that asks for gpus gets the
// driver's program and those gpus; any other container is left as it is.
func addGpus(spec, process object, bundle string) error {
	wanted := requested(spec, process)
	if wanted == "" || wanted == "void" || wanted == "none" {
		return nil
	}
	if _, err := exec.LookPath("/usr/bin/nvidia-smi"); err != nil {
		return fmt.Errorf("nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: " +
			"cannot open shared object file: no such file or directory (SIMULATED: the host has no driver)")
	}
	all, err := ioutil.ReadFile(cardList)
	if err != nil {
		return err
	}
	source, chosen := filepath.Dir(cardList), []int{}
	lines := []string{}
	for index, line := range strings.Split(strings.TrimSpace(string(all)), "\n") {
		fields := strings.Fields(line)
		if len(fields) > 0 && (wanted == "all" || names(wanted, fields[0], index)) {
			chosen, lines = append(chosen, index), append(lines, line)
		}
	}
	if wanted != "all" {
		if len(lines) < len(strings.Split(wanted, ",")) {
			return fmt.Errorf("nvidia-container-cli: device error: %s: unknown device (SIMULATED)", wanted)
		}
		source = filepath.Join(bundle, "labgpu")
		if err := os.MkdirAll(source, 0755); err != nil {
			return err
		}
		text := strings.Join(lines, "\n") + "\n"
		if err := ioutil.WriteFile(filepath.Join(source, "devices"), []byte(text), 0644); err != nil {
			return err
		}
	}
	if source, err = filepath.Abs(source); err != nil {
		return err
	}
	mounts, _ := spec["mounts"].([]interface{})
	const tool = "/usr/bin/nvidia-smi"
	mounts = append(mounts, bind(source, filepath.Dir(cardList), "ro"), bind(tool, tool, "ro"))
	for _, index := range chosen {
		node := fmt.Sprintf("/dev/nvidia%d", index)
		if _, err := os.Stat(node); err == nil {
			mounts = append(mounts, bind(node, node, "rw"))
		}
	}
	spec["mounts"] = mounts
	return nil
}

func names(wanted, uuid string, index int) bool {
	for _, item := range strings.Split(wanted, ",") {
		if item == uuid || item == strconv.Itoa(index) {
			return true
		}
	}
	return false
}

func bind(source, destination, access string) object {
	options := []string{"rbind", "rprivate", access}
	return object{"destination": destination, "type": "bind", "source": source, "options": options}
}
