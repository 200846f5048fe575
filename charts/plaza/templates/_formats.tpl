{{/* Renders nothing: refuses texts that are not what formats.yaml says of them, all at once. */}}
{{- define "plaza.formats" -}}
{{- $wrong := list -}}
{{- range $format := .Files.Get "formats.yaml" | fromYamlArray -}}
{{- range $at := $format.at -}}
{{- $value := $.Values -}}
{{- range splitList "." $at }}{{ $value = get ($value | default dict) . }}{{ end -}}
{{- range $text := kindIs "slice" $value | ternary $value (list $value) -}}
{{- if not (regexMatch $format.pattern ($text | toString)) -}}
{{- $wrong = append $wrong (printf "%s has %q, which is not %s, such as %s" $at $text $format.a $format.example) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $wrong }}{{ fail (join "\n" .) }}{{ end -}}
{{- end -}}
