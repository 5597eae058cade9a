# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_hekate_global_optspecs
    string join \n h/help V/version
end

function __fish_hekate_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_hekate_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_hekate_using_subcommand
    set -l cmd (__fish_hekate_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c hekate -n "__fish_hekate_needs_command" -s h -l help -d 'Print help'
complete -c hekate -n "__fish_hekate_needs_command" -s V -l version -d 'Print version'
complete -c hekate -n "__fish_hekate_needs_command" -f -a "seed" -d 'Seed every torrent found below the given directories'
complete -c hekate -n "__fish_hekate_needs_command" -f -a "index" -d 'Read a tree of torrents into one index file'
complete -c hekate -n "__fish_hekate_needs_command" -f -a "verify" -d 'Hash the content of torrents and report what is missing, short, corrupt or extra'
complete -c hekate -n "__fish_hekate_needs_command" -f -a "config" -d 'Print the default configuration file, or check one'
complete -c hekate -n "__fish_hekate_needs_command" -f -a "status" -d 'Show the status of the running daemon'
complete -c hekate -n "__fish_hekate_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l index -d 'Serve the torrents in an index file made by `hekate index`, instead of directories [default: none]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l root -d 'Library root for that index, if it was copied from elsewhere [default: as recorded in the index]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l state-dir -d 'Directory for the index and the record of verified pieces; safe to delete, at the cost of a new scan and new hashing [default: the user\'s state directory]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l rescan -d 'Interval of full rescans, which find changes that are not noticed at once; 0 disables them [default: 86400]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l content -d 'Directory that holds the content; of several, each torrent is served from the first that has all of it [default: beside each torrent file]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l content-for -d 'Directory that holds the content of the torrent files below another directory, instead of `content`; the longest such directory counts [default: none]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l content-root -d 'Additional directory that links in the library may lead to, and that Landlock lets the daemon read [default: none]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l verify -d 'How content is checked before it is served: by its size, or (lazy) also by hashing each piece before it is first served and after its file changes [default: size]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s p -l port -d 'Port to listen on; 0 lets the system choose one, which the log shows [default: 6969]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l bind -d 'Address to listen on; may be given more than once [default: every address]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l encryption -d 'Encrypted connections (MSE): accept those of peers that want it, require it of all, with RC4, or off [default: accept]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s N -l max-unchoked -d 'Upload slots: how many peers are served at the same time; auto means as few as fill the line [default: auto]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l max-peers -d 'Maximum number of connected peers; file descriptors may limit it further [default: as memory and descriptors allow]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l max-peers-per-ip -d 'Maximum number of connected peers per IP address [default: no limit]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s C -l credit -d 'Bytes that a peer may be sent before it gives up its slot, if others are waiting; K, M, G are powers of 1024 [default: 1M]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s T -l max-unchoked-time -d 'Seconds that a peer may hold a slot, if others are waiting [default: 300]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l max-rate -d 'Upload limit in bytes per second, for all peers together; K, M, G are powers of 1024 [default: no limit]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l super-seeding -d 'Send each piece of a public torrent once, when two leechers or more are there (BEP 16): auto, while nobody else is known to have all of it, on, or off [default: auto]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l tracker-override -d 'Announce every torrent to this tracker only [default: the trackers of each torrent]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l trackers -d 'Trackers to announce to: any, those at public addresses (public), or only those of tracker-host (list) [default: any]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l tracker-host -d 'Host of a tracker that is announced to wherever it is, or .DOMAIN for all hosts below it; with :PORT at that port only [default: none]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l tracker-certs -d 'Certificates (PEM) of HTTPS trackers that are trusted beside the system\'s, such as a self-signed one [default: none]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l shard -d 'Announce only share I of N, when N machines serve the same library; each machine still serves every torrent [default: all]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l announce-ip -d 'IP address to report to trackers; many ignore it [default: the source address of the announce]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l announce-port -d 'Port to report to trackers, if a router forwards a different one [default: the listening port]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l max-announce-rate -d 'Maximum announces per second to one tracker; 0 removes the limit [default: 100]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l connect -d 'Connect to the peers that trackers return, for peers that cannot connect to us: of `all` torrents, or of one info-hash [default: nobody]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l log -d 'Log level: error, warn, info, debug or trace; per component as in "info,storage=debug" [default: info]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l log-file -d 'File to write the log to; SIGUSR1 reopens it [default: standard error]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l status -d 'Address of the status page and the metrics: ADDRESS:PORT, unix:PATH or off [default: 127.0.0.1:6970, if it is free]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l status-host -d 'Host name under which the status page answers, for use behind a proxy [default: IP addresses and localhost]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l user -d 'User to switch to after binding, when started as root; the group defaults to the user\'s own [default: the user that starts it]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l pid-file -d 'File for the process id; a second process with the same file is refused [default: none]' -r
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s c -l config -d 'Configuration file [default: /etc/hekate/hekate.toml, if it exists]' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l no-subfolder -d 'Look for content also without the directory that has the torrent\'s name'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s 4 -l ipv4 -d 'Serve IPv4 only'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s 6 -l ipv6 -d 'Serve IPv6 only'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s t -l no-tracker -d 'Do not announce to trackers'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l daemon -d 'Run in the background once the daemon listens; requires log-file'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l landlock -d 'Restrict file access to the library and what the daemon itself needs (Landlock) [default: true]'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l no-landlock -d 'The same as --landlock=false'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l no-new-privs -d 'Never gain privileges by running a program (no_new_privs); Landlock requires it [default: true]'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -l allow-new-privs -d 'The same as --no-new-privs=false'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s l -l list -d 'List the torrents that would be served and why others are refused, then exit'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s v -l verbose -d 'Log more: once for --log debug, twice for --log trace'
complete -c hekate -n "__fish_hekate_using_subcommand seed" -s h -l help -d 'Print help'
complete -c hekate -n "__fish_hekate_using_subcommand index" -s o -l output -d 'Index file to write; an existing one is replaced atomically' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand index" -l content -d 'Directory that holds the content; of several, each torrent\'s is in the first that has all of it [default: as recorded in the index, or beside each torrent file]' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand index" -l content-for -d 'Directory that holds the content of the torrent files below another directory; the longest such directory counts' -r
complete -c hekate -n "__fish_hekate_using_subcommand index" -l content-root -d 'Additional directory that links in the library may lead to' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand index" -l no-subfolder -d 'Look for content also without the directory that has the torrent\'s name'
complete -c hekate -n "__fish_hekate_using_subcommand index" -s h -l help -d 'Print help'
complete -c hekate -n "__fish_hekate_using_subcommand verify" -l index -d 'Verify the torrents in an index file instead' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand verify" -l root -d 'Library root for that index, if it was copied from elsewhere [default: as recorded in the index]' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand verify" -l content -d 'Directory that holds the content; of several, each torrent\'s is in the first that has all of it [default: as recorded in the index, or beside each torrent file]' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand verify" -l content-for -d 'Directory that holds the content of the torrent files below another directory; the longest such directory counts' -r
complete -c hekate -n "__fish_hekate_using_subcommand verify" -l content-root -d 'Additional directory that links in the library may lead to' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand verify" -l no-subfolder -d 'Look for content also without the directory that has the torrent\'s name'
complete -c hekate -n "__fish_hekate_using_subcommand verify" -l json -d 'Print one JSON object for each torrent, and one for the totals'
complete -c hekate -n "__fish_hekate_using_subcommand verify" -s h -l help -d 'Print help'
complete -c hekate -n "__fish_hekate_using_subcommand config" -s c -l config -d 'Configuration file [default: /etc/hekate/hekate.toml, if it exists]' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand config" -l default -d 'Print the configuration file with every default'
complete -c hekate -n "__fish_hekate_using_subcommand config" -l check -d 'Check the configuration and report what is wrong; exit code 0 or 78'
complete -c hekate -n "__fish_hekate_using_subcommand config" -s h -l help -d 'Print help'
complete -c hekate -n "__fish_hekate_using_subcommand status" -l status -d 'Address of the status page and the metrics: ADDRESS:PORT, unix:PATH or off [default: 127.0.0.1:6970, if it is free]' -r
complete -c hekate -n "__fish_hekate_using_subcommand status" -s c -l config -d 'Configuration file [default: /etc/hekate/hekate.toml, if it exists]' -r -F
complete -c hekate -n "__fish_hekate_using_subcommand status" -l json -d 'Print JSON'
complete -c hekate -n "__fish_hekate_using_subcommand status" -s h -l help -d 'Print help'
complete -c hekate -n "__fish_hekate_using_subcommand help; and not __fish_seen_subcommand_from seed index verify config status help" -f -a "seed" -d 'Seed every torrent found below the given directories'
complete -c hekate -n "__fish_hekate_using_subcommand help; and not __fish_seen_subcommand_from seed index verify config status help" -f -a "index" -d 'Read a tree of torrents into one index file'
complete -c hekate -n "__fish_hekate_using_subcommand help; and not __fish_seen_subcommand_from seed index verify config status help" -f -a "verify" -d 'Hash the content of torrents and report what is missing, short, corrupt or extra'
complete -c hekate -n "__fish_hekate_using_subcommand help; and not __fish_seen_subcommand_from seed index verify config status help" -f -a "config" -d 'Print the default configuration file, or check one'
complete -c hekate -n "__fish_hekate_using_subcommand help; and not __fish_seen_subcommand_from seed index verify config status help" -f -a "status" -d 'Show the status of the running daemon'
complete -c hekate -n "__fish_hekate_using_subcommand help; and not __fish_seen_subcommand_from seed index verify config status help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
