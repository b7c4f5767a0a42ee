"""Known failures of the base system: apt and dpkg, keys and mirrors, sudo, disk, kernel values."""

from __future__ import annotations

from shipway.known_failures.entry import Known

# What a pattern may take out of a foreign text into a sentence, from which it may be typed as a command.
URL = r"https?://[A-Za-z0-9._~:/?#@%+,=-]+"
PACKAGE = r"[a-z0-9][a-z0-9+.-]+"  # Debian Policy 5.6.7
FILE = r"/[A-Za-z0-9._+@/-]+"
ENTRIES: tuple[Known, ...] = (
    Known(
        "SHW-401",
        "dpkg or apt is locked",
        r"Could not get lock /var/(?:lib/(?:dpkg|apt)|cache/apt)/|Unable to acquire the dpkg frontend lock|"
        r"dpkg (?:frontend|database) lock was locked by another process",
        "Another package manager is at work on the host (unattended-upgrades, apt-daily, cloud-init).",
        "Wait for it: `cloud-init status --wait; systemctl status unattended-upgrades`. Never remove the lock file.",
        retryable=True,
        traps=(1,),
    ),
    Known(
        "SHW-402",
        "dpkg was interrupted",
        r"dpkg was interrupted, you must manually run",
        "An earlier installation was cut off, and dpkg wants to finish it first.",
        "On the host: `sudo dpkg --configure -a`, then run again.",
        retryable=False,
        traps=(1, 2),
    ),
    Known(
        "SHW-403",
        "a held package would change",
        r"Held packages were changed and -y was used without --allow-change-held-packages",
        "A package is on hold (`apt-mark hold`) and apt may not change it.",
        "See `apt-mark showhold`; release the one that is named with `sudo apt-mark unhold PACKAGE`, then run again.",
        retryable=False,
        traps=(5,),
    ),
    Known(
        "SHW-327",
        "a package would be removed",
        r"Packages need to be removed but remove is disabled",
        "apt can only do this by removing a package, which is done for none that the cluster file does not name.",
        "See which with `apt-get -s install PACKAGE`; where nothing needs it any more, allow it under "
        "`system.may_remove` in the cluster file. What it runs ends with it.",
        retryable=False,
        traps=(1,),
    ),
    # What a source answered stands before what apt makes of it: without its lists it calls a repository "not signed".
    Known(
        "SHW-407",
        "a source refuses this host's address",
        r"403\s+Forbidden \[IP:|(?:pkgs|registry)\.k8s\.io\S*.{0,120}403 Forbidden",
        "The content network in front of the source refuses this host's address (HTTP 403): others may be let in.",
        "Name a mirror for it under `sources` in the cluster file; trying again does not help.",
        retryable=False,
        traps=(8,),
    ),
    Known(
        "SHW-446",
        "the proxy lets nothing through",
        r"Proxy Authentication Required|code 407 from proxy|proxyconnect tcp|Could not resolve proxy|"
        r"\s407\s[^\n]{0,60}\[IP:|CONNECT tunnel failed",
        "The proxy between this host and the source does not answer, or asks for a user and a password.",
        "On the host: `curl -v -x PROXY ADDRESS`; set `proxy.http`, `proxy.https` and `proxy.credentials` in the "
        "cluster file, and put hosts that are reached without it into `proxy.no_proxy`.",
        retryable=False,
    ),
    Known(
        "SHW-422",
        "a source is out of order",
        r"\s5\d\d\s+[A-Z][\w ]* \[IP:|(?:unexpected status|failed with status code)[^\n]{0,200}: 5\d\d [A-Z]|"
        r"returned error: 5\d\d",
        "The source answers with a fault of its own (HTTP 5xx): too much asked, under repair, or a proxy without way.",
        "Run again in a few minutes; on the host `curl -v ADDRESS` shows whether it has passed.",
        retryable=True,
        traps=(8,),
    ),
    Known(
        "SHW-411",
        "a name cannot be resolved",
        r"Temporary failure (?:in name resolution|resolving)|Could not resolve (?:host|')",
        "The host's name server does not answer for this name.",
        "On the host: `resolvectl status` (or `cat /etc/resolv.conf`); without internet name mirrors under `sources`.",
        retryable=True,
    ),
    Known(
        "SHW-412",
        "a source does not answer",
        r"E: Failed to fetch \S+\s+Could not connect|Could not connect to \S+:\d+ \(|curl: \((?:7|28|35|52|56)\)|"
        r"Unable to connect to \S+:|Cannot initiate the connection to|"
        r"Connection (?:timed out|failed) \[IP:",
        "The source is down, or a firewall or proxy is in between.",
        "On the host: `curl -v ADDRESS`; without internet name mirrors under `sources` in the cluster file.",
        retryable=True,
        traps=(8,),
    ),
    Known(
        "SHW-428",
        "a source's certificate is not accepted",
        # GnuTLS (apt up to 2.9), OpenSSL (apt 3), curl, wget; a certificate's dates are SHW-442.
        rf"Failed to fetch (?P<source>{URL})[^\n]*(?:certificate verify failed(?!:[^\n]*(?:expired|not yet valid))|"
        r"certificate is NOT trusted(?!\. The certificate chain uses (?:expired|not yet valid)))|"
        r"curl: \(60\)(?![^\n]*(?:expired|not yet valid))|SSL connection failed: [^\n]*certificate verify failed"
        r"(?!:[^\n]*(?:expired|not yet valid))",
        "This host does not know the authority that signed the certificate of SOURCE: a mirror with a site's own CA, "
        "or a proxy that opens TLS.",
        "Install the site's CA on the host (`/usr/local/share/ca-certificates/NAME.crt`, `sudo "
        "update-ca-certificates`), then run again; never turn the check off.",
        retryable=False,
    ),
    Known(
        "SHW-423",
        "a repository is from the future",
        rf"Release file for (?P<source>{URL}) is not valid yet \(invalid for another (?P<time>[0-9a-z ]{{1,40}})\)",
        "This host's clock is TIME behind the one that signed SOURCE, so apt takes none of its lists.",
        "Compare `date -u` on the host with another clock; `timedatectl set-ntp true` (or chrony) sets it. Then run "
        "again: a host whose clock is being set passes by itself.",
        retryable=True,
        traps=(15,),
    ),
    Known(
        "SHW-424",
        "a repository's lists have expired",
        rf"Release file for (?P<source>{URL}) is expired \(invalid since (?P<time>[0-9a-z ]{{1,40}})\)",
        "SOURCE says that it ended TIME ago: the mirror is no longer updated, a cache keeps an old copy, or this "
        "host's clock runs ahead.",
        "Compare `date -u` on the host with another clock; where it is right, name a mirror that is kept up to date "
        "under `sources` in the cluster file.",
        retryable=False,
        traps=(15,),
    ),
    Known(
        "SHW-425",
        "a release has left its mirror",
        rf"The repository '(?P<source>{URL}) (?P<suite>[A-Za-z0-9./_-]+) Release' no longer has a Release file",
        "SOURCE no longer holds SUITE: the release is past its end of life and was moved to an archive.",
        "Name the archive (`https://old-releases.ubuntu.com/ubuntu`, `http://archive.debian.org/debian`) in the host's "
        "apt sources or under `sources.base_apt` in the cluster file; better, install the host with a maintained "
        "release.",
        retryable=False,
    ),
    Known(
        "SHW-426",
        "two apt sources name different keys for one repository",
        rf"Conflicting values set for option Signed-By regarding source (?P<source>{URL})(?: \S+)?: "
        rf"(?P<first>{FILE})?[^\n]*? != (?P<second>{FILE})?",
        "SOURCE is configured twice on this host, with the keys FIRST and SECOND; apt refuses every command until one "
        "of the two is gone.",
        "On the host: `grep -r SOURCE /etc/apt/sources.list /etc/apt/sources.list.d` shows both; remove the entry that "
        "is not wanted (those of Shipway are named shipway-*.list), then run again.",
        retryable=False,
        traps=(7,),
    ),
    Known(
        "SHW-427",
        "a file of apt sources is no list of sources",
        r"(?:Type '[^'\n]*' is not known on (?:line|stanza) \d+|Malformed (?:entry|line|stanza) \d+[^\n]{0,80}?|"
        rf"Unable to parse[^\n]{{0,40}}?) (?:in|of) (?:source )?(?:list|file)(?: file)? (?P<file>{FILE})",
        "FILE does not hold apt sources: often the page of a web server was saved in place of the list.",
        "On the host: `head -5 FILE`; correct it or move it away (`sudo mv FILE FILE.disabled`), then run again.",
        retryable=False,
    ),
    Known(
        "SHW-404",
        "a repository's signing key has expired",
        r"EXPKEYSIG|/sqv returned an error[^\n]*[Ee]xpired on",
        "The key that signs a repository has expired; the project has published a renewed one.",
        "On the host: `sudo rm /etc/apt/keyrings/shipway-*`, then run again: keys are fetched anew and compared.",
        retryable=False,
        traps=(7,),
    ),
    Known(
        "SHW-359",
        "a repository's key is signed with SHA-1",
        r"/sqv returned an error(?:[^\n]*\n?){1,4}?[^\n]*SHA1 is not considered secure|"
        r"Signing key on [0-9A-F]{16,64} is not bound",
        "apt 3 (Debian 13, Ubuntu 25.04 and later) takes no signature that rests on SHA-1 since 2026-02-01.",
        "Ask the repository's owner for a renewed key and name it under `sources.apt.*.key` in the cluster file; where "
        "there is none, a mirror that is signed anew.",
        retryable=False,
        traps=(7,),
    ),
    Known(
        "SHW-405",
        "a repository's signature cannot be checked",
        r"NO_PUBKEY|/sqv returned an error[^\n]*Missing key|The repository '[^']*' is (?:not|no longer) signed",
        "The repository is signed with another key than the one named, or with none.",
        "Check `sources.apt.*.key` (url and fingerprint) in the cluster file against what the mirror really "
        "signs with.",
        retryable=False,
        traps=(7,),
    ),
    Known(
        "SHW-406",
        "the address is no apt repository",
        r"does not have a Release file",
        "There is no repository at this address and suite: another layout, another minor, or a codename it "
        "does not serve.",
        "Open the address that is named in a browser; correct `uri` and `suite` under `sources.apt` in the "
        "cluster file.",
        retryable=False,
        traps=(7,),
    ),
    Known(
        "SHW-450",
        "a file is not at its source",
        rf"(?:Failed to fetch|Err:\d+) (?P<source>{URL})[^\n]*\s404\s+Not Found|\s404\s+Not Found \[IP:",
        "SOURCE answers that it has no such file (HTTP 404): the host's lists are older than the mirror, or the mirror "
        "holds only a part.",
        "On the host: `sudo apt-get update`, then run again; where it stays, open the address and correct `uri` or the "
        "key's `url` under `sources` in the cluster file.",
        retryable=False,
        traps=(7,),
    ),
    Known(
        "SHW-429",
        "a package is broken and cannot be fetched again",
        rf"The package (?P<package>{PACKAGE}) needs to be reinstalled, but I can't find an archive for it",
        "PACKAGE was left half installed, and no repository of this host offers its version any more; apt refuses "
        "everything else until that is settled.",
        "On the host: `apt-cache policy PACKAGE; dpkg -s PACKAGE`; add the repository it came from and `sudo apt-get "
        "install --reinstall PACKAGE`. A driver's package holds the GPUs of running pods: drain the node first.",
        retryable=False,
    ),
    Known(
        "SHW-430",
        "a kernel module cannot be built",
        r"Bad return status for module build on kernel: (?P<kernel>[A-Za-z0-9._+~-]+)"
        rf"(?:(?:[^\n]*\n){{1,6}}?dpkg: error processing package (?P<package>{PACKAGE}) )?",
        "DKMS could not build the module of PACKAGE for the kernel KERNEL: its headers are missing, or this driver "
        "does not fit so new a kernel.",
        "On the host: `sudo apt-get install linux-headers-KERNEL`, then `sudo dpkg --configure -a`; the compiler's "
        "words are in `/var/lib/dkms/*/*/build/make.log`. Where it stays, a newer driver or an older kernel.",
        retryable=False,
        traps=(4,),
    ),
    Known(
        "SHW-449",
        "two packages hold one file",
        rf"trying to overwrite '(?P<file>{FILE})', which is also in package (?P<package>{PACKAGE})",
        "The new package brings FILE, which belongs to PACKAGE already.",
        "On the host: `dpkg -S FILE; apt-cache policy PACKAGE`; only one of the two packages can stay: take away the "
        "one that nobody needs, then run again.",
        retryable=False,
        traps=(6,),
    ),
    Known(
        "SHW-408",
        "the repository does not offer this package or version",
        r"E: Version '[^']+' for '[^']+' was not found|E: Unable to locate package|has no installation candidate",
        "The wanted version is not in the repository: it never was there, or a newer one has replaced it.",
        "On the host: `apt-cache madison PACKAGE` lists what there is; name one of these versions in the cluster file.",
        retryable=False,
        traps=(6,),
    ),
    Known(
        "SHW-409",
        "packages do not fit together",
        r"The following packages have unmet dependencies|you have held broken packages",
        "Installed packages (often Debian's containerd or runc beside Docker's containerd.io) stand against "
        "the new ones.",
        "On the host: `sudo apt-get install --dry-run PACKAGE` says which; remove that one, then run again.",
        retryable=False,
        traps=(6,),
    ),
    Known(
        "SHW-410",
        "a mirror is being updated",
        r"Hash Sum mismatch|File has unexpected size",
        "The mirror's lists and files are of different moments.",
        "Run again in a few minutes; where it stays, another mirror or a proxy's cache is at fault.",
        retryable=True,
    ),
    Known(
        "SHW-413",
        "the disk is full",
        r"[Nn]o space left on device|You don't have enough free space in",  # C, Go, apt before it fetches
        "A file system of the host is full.",
        "On the host: `df -h; df -i`; make room (`sudo apt-get clean`, `sudo journalctl "
        "--vacuum-size=200M`), run again.",
        retryable=False,
    ),
    Known(
        "SHW-414",
        "a mirror changed its name",
        r"changed its '(?:Origin|Label|Suite|Codename|Version)' value from",
        "The repository now calls itself otherwise, and apt asks a person whether that is right.",
        "If it is: on the host `sudo apt-get update --allow-releaseinfo-change`, then run again.",
        retryable=False,
    ),
    Known(
        "SHW-415",
        "sudo asks for a password or a terminal",
        r"sudo: a password is required|sudo: a terminal is required|sorry, you must have a tty|"
        r"is not in the sudoers file",
        "The SSH user may not use sudo without a password, or sudo wants a terminal.",
        "On the host: `echo 'USER ALL=(ALL) NOPASSWD: ALL' | sudo tee /etc/sudoers.d/shipway`, and no `requiretty`.",
        retryable=False,
        traps=(49,),
    ),
    Known(
        "SHW-416",
        "a file system is read-only",
        r"Read-only file system",
        "The kernel has made a file system read-only after an error, or the image is an immutable one.",
        "On the host: `dmesg | grep -i 'remount'`; repair the disk, or use an image whose / can be written to.",
        retryable=False,
    ),
    Known(
        "SHW-354",
        "a script turns swap on again",
        r"(?P<file>/(?:etc|var/spool/cron)/[A-Za-z0-9._/-]+|[A-Za-z0-9:_.@-]+\.service)(?::\d+)? calls swapon",
        "FILE turns swap on after a restart, and the kubelet does not start with it.",
        "On the host: take the line out of FILE (a service: `sudo systemctl edit --full FILE`), then run again; "
        "it is a person's, and is never edited here.",
        retryable=False,
        traps=(9,),
    ),
    Known(
        "SHW-417",
        "swap cannot be turned off",
        r"swapoff: .{0,80}(?:Cannot allocate memory|swapoff failed)",
        "What lies in swap does not fit into memory.",
        "On the host: `free -m`; stop what uses the memory, then `sudo swapoff -a` and run again.",
        retryable=False,
        traps=(9,),
    ),
    Known(
        "SHW-418",
        "a package asks a question",
        r"end of file on stdin at conffile prompt|debconf: unable to initialize frontend: \S+\n(?:.*\n)*E: Sub-process",
        "A package's script asks about a changed configuration file, and there is nobody to answer.",
        "On the host: `sudo dpkg --configure -a --force-confold`, then run again.",
        retryable=False,
        traps=(2,),
    ),
    Known(
        "SHW-419",
        "the bridge netfilter module is not there",
        r"cannot stat /proc/sys/net/bridge/|bridge-nf-call-ip6?tables[^\n]{0,40}(?:does not exist|No such file)",
        "The kernel module br_netfilter is not loaded, so its values do not exist.",
        "On the host: `sudo modprobe br_netfilter`; where that fails, boot the kernel whose modules are installed.",
        retryable=False,
        traps=(10,),
    ),
    Known(
        "SHW-420",
        "a kernel module is missing",
        r"modprobe: FATAL: Module \S+ not found in directory",
        "The modules of the running kernel are not installed: often it was upgraded and the host not yet restarted.",
        "On the host: `uname -r; ls /lib/modules`; restart it into the installed kernel (`sudo reboot`), "
        "then run again.",
        retryable=False,
        traps=(4, 10),
    ),
    Known(
        "SHW-421",
        "no more file watches",
        r"too many open files",
        "The kernel's limit of inotify instances or open files is reached (128 instances by default).",
        "On the host: `sysctl fs.inotify.max_user_instances`; run again: the kernel values step raises it.",
        retryable=False,
        traps=(11,),
    ),
)
# What dpkg says last: what a package's script failed of stands above it, and has an entry of its own where known.
LAST: tuple[Known, ...] = (
    Known(
        "SHW-447",
        "a package's own script fails",
        rf"installed (?P<package>{PACKAGE}) package (?:pre|post)-(?:installation|removal) script "
        r"subprocess returned error",
        "The installation script of PACKAGE ended with an error; the lines before say of what.",
        "On the host: `sudo dpkg --configure PACKAGE` shows it again; mend what it names, then run again.",
        retryable=False,
    ),
)
