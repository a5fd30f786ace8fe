# Completion of magent's options in bash. Words after an option are what `magent -h` says of its value.

_magent() {
	local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}
	local options='
		-s --server -b --backup -c --config --copies --eject -k --ketama --handover
		-i --server-conns --timeout
		-l --listen -p --port -f --socket -n --max-conns --idle-timeout
		--max-item-size --memory-limit
		--ack --rejoin --journal-keys --read-repair --resync-rate --proxy-id
		-u --user -g --group -D --foreground -d --daemon --pidfile --drain-ms --takeover
		-v --verbose -o --log-file --log-format --slow-ms --log-keys --admin --admin-name
		-h --help -V --version -t --test-config --route --verify --check --watch
		--track-file --interval --top'
	# bash takes `=` for a word of its own: --ack=all is three.
	if [[ $word == = ]]; then
		word=
	elif [[ $option == = && COMP_CWORD -ge 2 ]]; then
		option=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	COMPREPLY=()
	case $option in
	--ack) COMPREPLY=($(compgen -W 'all primary' -- "$word")) ;;
	--copies) COMPREPLY=($(compgen -W 'all' -- "$word")) ;;
	--log-format) COMPREPLY=($(compgen -W 'text json' -- "$word")) ;;
	--read-repair) COMPREPLY=($(compgen -W 'auto always off' -- "$word")) ;;
	--rejoin) COMPREPLY=($(compgen -W 'safe as-is' -- "$word")) ;;
	-u | --user) COMPREPLY=($(compgen -u -- "$word")) ;;
	-g | --group) COMPREPLY=($(compgen -g -- "$word")) ;;
	-s | --server | -b | --backup | -l | --listen) COMPREPLY=($(compgen -A hostname -- "$word")) ;;
	-c | --config | -f | --socket | -o | --log-file | --pidfile | --track-file | --check | --watch)
		compopt -o filenames
		COMPREPLY=($(compgen -f -- "$word"))
		;;
	-i | --server-conns | --timeout | --handover | -p | --port | -n | --max-conns | --idle-timeout) ;;
	--max-item-size | --memory-limit | --journal-keys | --resync-rate | --proxy-id | --drain-ms) ;;
	--slow-ms | --admin | --admin-name | --interval | --top) ;;
	*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
	esac
}

complete -F _magent magent
